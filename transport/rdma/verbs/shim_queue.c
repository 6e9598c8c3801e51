//go:build linux && cgo && rdma

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shim_library.h"

enum {
	SLOT_ALIGN = 64, // a cache line
	PAGE = 4096,
	// Events are acknowledged in batches: it takes a mutex.
	ACKNOWLEDGE = 64,
};

// A header-only PDU of iSER has 76 bytes. Devices that take fewer bytes inline
// than asked for refuse the queue pair, so less is tried next.
static const uint32_t inline_sizes[] = {128, 76, 0};

static uint32_t aligned(uint32_t n)
{
	return (n + SLOT_ALIGN - 1) / SLOT_ALIGN * SLOT_ALIGN;
}

static int nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

// make_slots maps the memory of all slots, outside of what a child process gets:
// copy on write would move its pages away from the device.
static int make_slots(struct vb_conn *c)
{
	struct vb_memory *m = &c->memory;
	const struct vb_shape *s = &c->shape;
	m->receive_stride = aligned(s->receive_size);
	m->send_stride = aligned(s->send_size);
	size_t received = (size_t)m->receive_stride * s->receives;
	size_t len = received + (size_t)m->send_stride * s->send_slots;
	len = (len + PAGE - 1) / PAGE * PAGE;
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	c->slots = p;
	c->slots_len = len;
	m->receive_slots = p;
	m->send_slots = m->receive_slots + received;
	if (madvise(p, len, MADV_DONTFORK) < 0)
		return -errno;
	c->slots_mr = vb.reg_mr(c->pd, p, len, IBV_ACCESS_LOCAL_WRITE);
	if (!c->slots_mr)
		return -errno;
	m->lkey = c->slots_mr->lkey;
	m->sends = calloc(s->sends, sizeof *m->sends);
	m->receives = calloc(s->receives, sizeof *m->receives);
	m->done = calloc(VB_BATCH, sizeof *m->done);
	return m->sends && m->receives && m->done ? 0 : -ENOMEM;
}

static int make_qp(struct vb_conn *c)
{
	unsigned i;
	for (i = 0; i < sizeof inline_sizes / sizeof *inline_sizes; i++) {
		struct ibv_qp_init_attr a = {
			.send_cq = c->cq,
			.recv_cq = c->cq,
			.qp_type = IBV_QPT_RC,
			.cap = {
				.max_send_wr = c->shape.sends,
				.max_recv_wr = c->shape.receives,
				.max_send_sge = 2,
				.max_recv_sge = 1,
				.max_inline_data = inline_sizes[i],
			},
		};
		if (vb.create_qp(c->id, c->pd, &a) == 0) {
			c->inline_max = inline_sizes[i];
			return 0;
		}
	}
	return -errno;
}

// vb_setup makes the queues of a connection whose device is known.
int vb_setup(struct vb_conn *c, const struct vb_shape *s, struct vb_memory *m)
{
	int rc;
	c->shape = *s;
	errno = 0;
	if (!(c->pd = vb.alloc_pd(c->id->verbs)) ||
	    !(c->channel = vb.create_comp_channel(c->id->verbs)) ||
	    !(c->cq = vb.create_cq(c->id->verbs, s->sends + s->receives, NULL, c->channel, 0)))
		return errno ? -errno : -ENOMEM;
	if ((rc = nonblocking(c->channel->fd)) || (rc = make_slots(c)) || (rc = make_qp(c)))
		return rc;
	c->memory.completion_fd = c->channel->fd;
	*m = c->memory;
	return 0;
}

static int post_receives(struct vb_conn *c, uint32_t from, uint32_t n)
{
	struct ibv_recv_wr *bad;
	uint32_t i;
	for (i = 0; i < n; i++) {
		uint32_t slot = c->memory.receives[(from + i) % c->shape.receives];
		c->receive_sge[i] = (struct ibv_sge){
			.addr = (uintptr_t)c->memory.receive_slots + (uint64_t)slot * c->memory.receive_stride,
			.length = c->shape.receive_size,
			.lkey = c->memory.lkey,
		};
		c->receive[i] = (struct ibv_recv_wr){
			.wr_id = VB_RECEIVE | slot,
			.sg_list = &c->receive_sge[i],
			.num_sge = 1,
			.next = i + 1 < n ? &c->receive[i + 1] : NULL,
		};
	}
	return -ibv_post_recv(c->id->qp, c->receive, &bad);
}

static const enum ibv_wr_opcode opcodes[] = {
	[VB_SEND] = IBV_WR_SEND,
	[VB_SEND_INVALIDATE] = IBV_WR_SEND_WITH_INV,
	[VB_WRITE] = IBV_WR_RDMA_WRITE,
	[VB_READ] = IBV_WR_RDMA_READ,
};

static int post_sends(struct vb_conn *c, uint64_t from, uint32_t n)
{
	struct ibv_send_wr *bad;
	uint32_t i;
	for (i = 0; i < n; i++) {
		const struct vb_send *s = &c->memory.sends[(from + i) % c->shape.sends];
		struct ibv_send_wr *w = &c->send[i];
		struct ibv_sge *sge = c->send_sge[i];
		int k, pieces = 0;
		for (k = 0; k < 2; k++)
			if (s->len[k])
				sge[pieces++] = (struct ibv_sge){.addr = s->addr[k], .length = s->len[k], .lkey = s->lkey[k]};
		memset(w, 0, sizeof *w);
		w->wr_id = from + i;
		w->opcode = opcodes[s->op];
		w->sg_list = sge;
		w->num_sge = pieces;
		w->next = i + 1 < n ? w + 1 : NULL;
		w->send_flags = s->signal ? IBV_SEND_SIGNALED : 0;
		if (s->op == VB_SEND_INVALIDATE) {
			w->invalidate_rkey = s->rkey;
		} else if (s->op != VB_SEND) {
			w->wr.rdma.remote_addr = s->remote;
			w->wr.rdma.rkey = s->rkey;
		}
		if (s->op != VB_READ && pieces && s->len[0] <= c->inline_max && s->len[1] <= c->inline_max - s->len[0])
			w->send_flags |= IBV_SEND_INLINE;
	}
	return -ibv_post_send(c->id->qp, c->send, &bad);
}

int vb_post(struct vb_conn *c, uint32_t receive, uint32_t receives, uint64_t send, uint32_t sends)
{
	int rc;
	while (receives) {
		uint32_t n = receives < VB_BATCH ? receives : VB_BATCH;
		if ((rc = post_receives(c, receive, n)))
			return rc;
		receive = (receive + n) % c->shape.receives;
		receives -= n;
	}
	while (sends) {
		uint32_t n = sends < VB_BATCH ? sends : VB_BATCH;
		if ((rc = post_sends(c, send, n)))
			return rc;
		send += n;
		sends -= n;
	}
	return 0;
}

// take_event takes the event that a completion has made, if there is one.
static int take_event(struct vb_conn *c)
{
	struct ibv_cq *cq;
	void *context;
	while (vb.get_cq_event(c->channel, &cq, &context))
		if (errno != EINTR)
			return errno == EAGAIN ? 0 : -errno;
	c->armed = 0;
	if (++c->unacknowledged == ACKNOWLEDGE) {
		vb.ack_cq_events(c->cq, c->unacknowledged);
		c->unacknowledged = 0;
	}
	return 0;
}

// taken hands over what was polled.
static int taken(struct vb_conn *c, int n)
{
	int i;

	if (n < 0)
		return -EIO;
	for (i = 0; i < n; i++) {
		const struct ibv_wc *w = &c->wc[i];
		c->memory.done[i] = (struct vb_done){
			.id = w->wr_id,
			.status = w->status,
			.len = w->byte_len,
			.invalidated = w->wc_flags & IBV_WC_WITH_INV ? w->invalidated_rkey : 0,
			.vendor = w->vendor_err,
		};
	}
	return n;
}

int vb_poll(struct vb_conn *c)
{
	return taken(c, ibv_poll_cq(c->cq, VB_BATCH, c->wc));
}

int vb_drain(struct vb_conn *c)
{
	int rc, n = ibv_poll_cq(c->cq, VB_BATCH, c->wc);
	if (n == 0) { // the system calls are only for when there is nothing else to do
		if ((rc = take_event(c)))
			return rc;
		if (!c->armed) {
			if ((rc = ibv_req_notify_cq(c->cq, 0)))
				return -rc;
			c->armed = 1;
			n = ibv_poll_cq(c->cq, VB_BATCH, c->wc); // what came before made no event
		}
	}
	return taken(c, n);
}

int vb_register(struct vb_conn *c, uintptr_t addr, uint64_t len, int access, uintptr_t *handle, uint32_t *lkey, uint32_t *rkey)
{
	int flags = (access & VB_LOCAL_WRITE ? IBV_ACCESS_LOCAL_WRITE : 0) |
		    (access & VB_REMOTE_READ ? IBV_ACCESS_REMOTE_READ : 0) |
		    (access & VB_REMOTE_WRITE ? IBV_ACCESS_REMOTE_WRITE : 0);
	struct ibv_mr *mr = vb.reg_mr(c->pd, (void *)addr, len, flags);
	if (!mr)
		return -errno;
	*handle = (uintptr_t)mr;
	*lkey = mr->lkey;
	*rkey = mr->rkey;
	return 0;
}

int vb_deregister(uintptr_t handle)
{
	return -vb.dereg_mr((struct ibv_mr *)handle);
}

uintptr_t vb_context(struct vb_conn *c)
{
	return (uintptr_t)c->id->verbs;
}

uintptr_t vb_queue(struct vb_conn *c)
{
	return (uintptr_t)c->id->qp;
}

int vb_async_fd(uintptr_t context)
{
	int fd = ((struct ibv_context *)context)->async_fd;
	int rc = nonblocking(fd);
	return rc ? rc : fd;
}

int vb_next_async(uintptr_t context, struct vb_async *a)
{
	struct ibv_async_event e;
	errno = 0;
	if (vb.get_async_event((struct ibv_context *)context, &e))
		return errno ? -errno : -EIO;
	a->number = e.event_type;
	a->queue = (uintptr_t)e.element.qp;
	switch (e.event_type) {
	case IBV_EVENT_QP_FATAL: a->type = VB_ASYNC_QP_FATAL; break;
	case IBV_EVENT_QP_REQ_ERR: a->type = VB_ASYNC_QP_REQUEST; break;
	case IBV_EVENT_QP_ACCESS_ERR: a->type = VB_ASYNC_QP_ACCESS; break;
	case IBV_EVENT_DEVICE_FATAL: a->type = VB_ASYNC_DEVICE_FATAL; break;
	default: a->type = VB_ASYNC_OTHER;
	}
	return 0;
}

void vb_ack_async(const struct vb_async *a)
{
	struct ibv_async_event e = {.event_type = a->number, .element.qp = (struct ibv_qp *)a->queue};
	vb.ack_async_event(&e);
}

int vb_to_error(struct vb_conn *c)
{
	struct ibv_qp_attr a = {.qp_state = IBV_QPS_ERR};
	return c->id->qp ? -vb.modify_qp(c->id->qp, &a, IBV_QP_STATE) : 0;
}

void vb_destroy_queues(struct vb_conn *c)
{
	if (c->id && c->id->qp)
		vb.destroy_qp(c->id);
	if (c->slots_mr)
		vb.dereg_mr(c->slots_mr);
	c->slots_mr = NULL;
}

void vb_destroy(struct vb_conn *c)
{
	if (c->cq) {
		if (c->unacknowledged)
			vb.ack_cq_events(c->cq, c->unacknowledged);
		vb.destroy_cq(c->cq);
	}
	if (c->channel)
		vb.destroy_comp_channel(c->channel);
	if (c->pd)
		vb.dealloc_pd(c->pd);
	if (c->id)
		vb.destroy_id(c->id);
	if (c->events)
		vb.destroy_event_channel(c->events);
	c->cq = NULL;
	c->channel = NULL;
	c->pd = NULL;
	c->id = NULL;
	c->events = NULL;
}

void vb_free(struct vb_conn *c)
{
	if (c->slots)
		munmap(c->slots, c->slots_len);
	free(c->memory.sends);
	free(c->memory.receives);
	free(c->memory.done);
	free(c);
}
