//go:build linux && cgo && rdma

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "shim_library.h"

static int failed(int rc)
{
	return rc == 0 ? 0 : errno ? -errno : -EIO;
}

static socklen_t to_sockaddr(const struct vb_addr *a, struct sockaddr_storage *s)
{
	memset(s, 0, sizeof *s);
	if (a->family == 4) {
		struct sockaddr_in *in = (struct sockaddr_in *)s;
		in->sin_family = AF_INET;
		in->sin_port = htons(a->port);
		memcpy(&in->sin_addr, a->ip, 4);
		return sizeof *in;
	}
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)s;
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(a->port);
	in6->sin6_scope_id = a->scope;
	memcpy(&in6->sin6_addr, a->ip, 16);
	return sizeof *in6;
}

static void from_sockaddr(const struct sockaddr *s, struct vb_addr *a)
{
	memset(a, 0, sizeof *a);
	if (s->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)s;
		a->family = 4;
		a->port = ntohs(in->sin_port);
		memcpy(a->ip, &in->sin_addr, 4);
	} else if (s->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)s;
		a->family = 6;
		a->port = ntohs(in6->sin6_port);
		a->scope = in6->sin6_scope_id;
		memcpy(a->ip, &in6->sin6_addr, 16);
	}
}

static int add_channel(struct vb_conn *c)
{
	errno = 0;
	if (!(c->events = vb.create_event_channel()))
		return failed(-1);
	int flags = fcntl(c->events->fd, F_GETFL);
	return failed(flags < 0 ? -1 : fcntl(c->events->fd, F_SETFL, flags | O_NONBLOCK));
}

int vb_open(struct vb_conn **out)
{
	struct vb_conn *c = calloc(1, sizeof *c);
	if (!c)
		return -ENOMEM;
	int rc = add_channel(c);
	if (rc == 0) {
		errno = 0;
		rc = failed(vb.create_id(c->events, &c->id, NULL, RDMA_PS_TCP));
	}
	if (rc) {
		vb_destroy(c);
		vb_free(c);
		return rc;
	}
	*out = c;
	return 0;
}

int vb_event_fd(struct vb_conn *c)
{
	return c->events->fd;
}

static uint32_t event_type(enum rdma_cm_event_type t)
{
	switch (t) {
	case RDMA_CM_EVENT_ADDR_RESOLVED: return VB_ADDR_RESOLVED;
	case RDMA_CM_EVENT_ADDR_ERROR: return VB_ADDR_ERROR;
	case RDMA_CM_EVENT_ROUTE_RESOLVED: return VB_ROUTE_RESOLVED;
	case RDMA_CM_EVENT_ROUTE_ERROR: return VB_ROUTE_ERROR;
	case RDMA_CM_EVENT_CONNECT_REQUEST: return VB_CONNECT_REQUEST;
	case RDMA_CM_EVENT_CONNECT_ERROR: return VB_CONNECT_ERROR;
	case RDMA_CM_EVENT_UNREACHABLE: return VB_UNREACHABLE;
	case RDMA_CM_EVENT_REJECTED: return VB_REJECTED;
	case RDMA_CM_EVENT_ESTABLISHED: return VB_ESTABLISHED;
	case RDMA_CM_EVENT_DISCONNECTED: return VB_DISCONNECTED;
	case RDMA_CM_EVENT_DEVICE_REMOVAL: return VB_DEVICE_REMOVAL;
	case RDMA_CM_EVENT_ADDR_CHANGE: return VB_ADDR_CHANGE;
	case RDMA_CM_EVENT_TIMEWAIT_EXIT: return VB_TIMEWAIT_EXIT;
	default: return VB_OTHER;
	}
}

// adopt gives a request for a connection an event channel of its own. Its event
// has been acknowledged: moving it waits for that.
static int adopt(struct rdma_cm_id *id, struct vb_conn **out)
{
	struct vb_conn *c = calloc(1, sizeof *c);
	int rc = c ? add_channel(c) : -ENOMEM;
	if (rc == 0) {
		errno = 0;
		rc = failed(vb.migrate_id(id, c->events));
	}
	if (rc) {
		vb.destroy_id(id); // which rejects it
		if (c) {
			vb_destroy(c);
			vb_free(c);
		}
		return rc;
	}
	c->id = id;
	*out = c;
	return 0;
}

int vb_next_event(struct vb_conn *c, struct vb_event *e)
{
	struct rdma_cm_event *event;
	errno = 0;
	if (vb.get_cm_event(c->events, &event))
		return failed(-1);
	memset(e, 0, sizeof *e);
	e->type = event_type(event->event);
	e->status = event->status;
	if (e->type == VB_CONNECT_REQUEST || e->type == VB_ESTABLISHED || e->type == VB_REJECTED) {
		const struct rdma_conn_param *p = &event->param.conn;
		e->responder_resources = p->responder_resources;
		e->initiator_depth = p->initiator_depth;
		if (p->private_data) {
			e->private_len = p->private_data_len;
			memcpy(e->private_data, p->private_data, p->private_data_len);
		}
	}
	struct rdma_cm_id *id = event->id;
	vb.ack_cm_event(event);
	// Without memory for it, the request is dropped, and nobody is told.
	if (e->type == VB_CONNECT_REQUEST && adopt(id, &e->request))
		e->type = VB_OTHER;
	return 0;
}

int vb_set_tos(struct vb_conn *c, uint8_t tos)
{
	errno = 0;
	return failed(vb.set_option(c->id, RDMA_OPTION_ID, RDMA_OPTION_ID_TOS, &tos, sizeof tos));
}

int vb_resolve_addr(struct vb_conn *c, const struct vb_addr *from, const struct vb_addr *to, int ms)
{
	struct sockaddr_storage src, dst;
	to_sockaddr(to, &dst);
	if (from->family)
		to_sockaddr(from, &src);
	errno = 0;
	return failed(vb.resolve_addr(c->id, from->family ? (struct sockaddr *)&src : NULL, (struct sockaddr *)&dst, ms));
}

int vb_resolve_route(struct vb_conn *c, int ms)
{
	errno = 0;
	return failed(vb.resolve_route(c->id, ms));
}

int vb_listen(struct vb_conn *c, const struct vb_addr *at, int backlog)
{
	struct sockaddr_storage s;
	to_sockaddr(at, &s);
	errno = 0;
	int rc = failed(vb.bind_addr(c->id, (struct sockaddr *)&s));
	return rc ? rc : failed(vb.listen(c->id, backlog));
}

void vb_describe(struct vb_conn *c, struct vb_device *d)
{
	struct ibv_context *verbs = c->id->verbs;
	struct ibv_device_attr a;
	struct ibv_port_attr port;
	union ibv_gid *gid = &c->id->route.addr.addr.ibaddr.sgid;
	memset(d, 0, sizeof *d);
	memset(&a, 0, sizeof a);
	memset(&port, 0, sizeof port);
	strncpy(d->name, vb.get_device_name(verbs->device), sizeof d->name - 1);
	d->iwarp = verbs->device->transport_type == IBV_TRANSPORT_IWARP;
	if (vb.query_device(verbs, &a) == 0) {
		d->max_requests = a.max_qp_wr;
		d->max_completions = a.max_cqe;
		d->max_regions = a.max_mr;
		d->max_responder = a.max_qp_rd_atom > 255 ? 255 : a.max_qp_rd_atom;
		d->max_initiator = a.max_qp_init_rd_atom > 255 ? 255 : a.max_qp_init_rd_atom;
	}
	if (vb.query_port(verbs, c->id->port_num, (struct _compat_ibv_port_attr *)&port) == 0) {
		d->ethernet = port.link_layer == IBV_LINK_LAYER_ETHERNET;
		d->mtu = port.active_mtu ? 128 << port.active_mtu : 0;
	}
	memcpy(d->gid, gid->raw, sizeof d->gid);
}

static void fill(struct rdma_conn_param *p, const uint8_t *data, uint8_t len, uint8_t responder, uint8_t initiator)
{
	memset(p, 0, sizeof *p);
	p->private_data = len ? data : NULL;
	p->private_data_len = len;
	p->responder_resources = responder;
	p->initiator_depth = initiator;
	p->retry_count = 7;
	p->rnr_retry_count = 7; // for ever; in a request it is the peer's that is set
}

int vb_connect(struct vb_conn *c, const uint8_t *data, uint8_t len, uint8_t responder, uint8_t initiator)
{
	struct rdma_conn_param p;
	fill(&p, data, len, responder, initiator);
	errno = 0;
	return failed(vb.connect(c->id, &p));
}

int vb_accept(struct vb_conn *c, const uint8_t *data, uint8_t len, uint8_t responder, uint8_t initiator)
{
	struct rdma_conn_param p;
	fill(&p, data, len, responder, initiator);
	errno = 0;
	return failed(vb.accept(c->id, &p));
}

int vb_reject(struct vb_conn *c, const uint8_t *data, uint8_t len)
{
	errno = 0;
	return failed(vb.reject(c->id, len ? data : NULL, len));
}

int vb_disconnect(struct vb_conn *c)
{
	errno = 0;
	return failed(vb.disconnect(c->id));
}

void vb_addresses(struct vb_conn *c, struct vb_addr *local, struct vb_addr *remote)
{
	from_sockaddr(rdma_get_local_addr(c->id), local);
	from_sockaddr(rdma_get_peer_addr(c->id), remote);
}
