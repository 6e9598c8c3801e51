// The part of librdmacm and libibverbs that package verbs uses, with what is
// better done in C: their structures, and work in batches. Nothing here waits
// but for the kernel, and no pointer of Go's is kept. Functions return 0 (or a
// count), or a negative errno.
#ifndef VERBS_SHIM_H
#define VERBS_SHIM_H

#include <stdint.h>

enum {
	VB_BATCH = 64,         // requests that are posted, and completions that are taken, at a time
	VB_PRIVATE_DATA = 256, // the most that a connection manager delivers
};

// The top bit of a work request's ID says that it is a receive.
#define VB_RECEIVE (UINT64_C(1) << 63)

enum vb_event_type {
	VB_OTHER,
	VB_ADDR_RESOLVED,
	VB_ADDR_ERROR,
	VB_ROUTE_RESOLVED,
	VB_ROUTE_ERROR,
	VB_CONNECT_REQUEST,
	VB_CONNECT_ERROR,
	VB_UNREACHABLE,
	VB_REJECTED,
	VB_ESTABLISHED,
	VB_DISCONNECTED,
	VB_DEVICE_REMOVAL,
	VB_ADDR_CHANGE,
	VB_TIMEWAIT_EXIT,
};

struct vb_addr {
	uint16_t family; // 4, 6; 0: there is none
	uint16_t port;
	uint32_t scope;
	uint8_t ip[16];
};

// A connection, a request for one, or a listener.
struct vb_conn;

struct vb_event {
	uint32_t type;
	int32_t status;
	struct vb_conn *request; // VB_CONNECT_REQUEST: a connection of its own
	uint8_t responder_resources, initiator_depth;
	uint16_t private_len;
	uint8_t private_data[VB_PRIVATE_DATA];
};

// What a connection's queues are like.
struct vb_shape {
	uint32_t sends, receives; // requests
	uint32_t send_slots, send_size, receive_size;
};

// A request as Go puts it into the ring of sends.
struct vb_send {
	uint64_t addr[2];
	uint64_t remote;
	uint32_t len[2];
	uint32_t lkey[2];
	uint32_t rkey; // to reach, or to invalidate
	uint8_t op;
	uint8_t signal;
	uint8_t pad[2];
};

enum vb_op { VB_SEND, VB_SEND_INVALIDATE, VB_WRITE, VB_READ };

// A completion.
struct vb_done {
	uint64_t id;
	uint32_t status; // enum ibv_wc_status; 0: success
	uint32_t len;
	uint32_t invalidated; // key, or 0
	uint32_t vendor;
};

// Where a connection's memory is, once it is set up.
struct vb_memory {
	struct vb_send *sends; // ring of shape.sends
	uint32_t *receives;    // ring of shape.receives slots
	uint8_t *send_slots, *receive_slots;
	uint32_t send_stride, receive_stride;
	uint32_t lkey; // of both kinds of slots
	struct vb_done *done; // VB_BATCH of them, valid until the next vb_drain
	int completion_fd;
};

// What a device can do, and what it is called.
struct vb_device {
	char name[64];
	uint8_t gid[16];
	uint8_t iwarp, ethernet;
	uint16_t mtu;
	uint32_t max_requests, max_completions, max_regions;
	uint8_t max_responder, max_initiator;
};

// What a device tells of outside of its queues.
enum vb_async_type { VB_ASYNC_OTHER, VB_ASYNC_QP_FATAL, VB_ASYNC_QP_REQUEST, VB_ASYNC_QP_ACCESS, VB_ASYNC_DEVICE_FATAL };

struct vb_async {
	uint32_t type;
	uint32_t number; // enum ibv_event_type
	uintptr_t queue; // what it is about, as vb_queue has it
};

enum vb_access { VB_LOCAL_WRITE = 1, VB_REMOTE_READ = 2, VB_REMOTE_WRITE = 4 };

int vb_load(char *error, unsigned size);

int vb_open(struct vb_conn **out);
int vb_event_fd(struct vb_conn *c);
int vb_next_event(struct vb_conn *c, struct vb_event *e);
int vb_set_tos(struct vb_conn *c, uint8_t tos);
int vb_resolve_addr(struct vb_conn *c, const struct vb_addr *from, const struct vb_addr *to, int ms);
int vb_resolve_route(struct vb_conn *c, int ms);
int vb_listen(struct vb_conn *c, const struct vb_addr *at, int backlog);
void vb_describe(struct vb_conn *c, struct vb_device *d);
int vb_setup(struct vb_conn *c, const struct vb_shape *s, struct vb_memory *m);
int vb_connect(struct vb_conn *c, const uint8_t *data, uint8_t len, uint8_t responder, uint8_t initiator);
int vb_accept(struct vb_conn *c, const uint8_t *data, uint8_t len, uint8_t responder, uint8_t initiator);
int vb_reject(struct vb_conn *c, const uint8_t *data, uint8_t len);
void vb_addresses(struct vb_conn *c, struct vb_addr *local, struct vb_addr *remote);

int vb_register(struct vb_conn *c, uintptr_t addr, uint64_t len, int access, uintptr_t *handle, uint32_t *lkey, uint32_t *rkey);
int vb_deregister(uintptr_t handle);

// vb_post posts receives first (places of their ring), then sends (numbers,
// whose places in their ring are modulo its length, and which are their IDs).
int vb_post(struct vb_conn *c, uint32_t receive, uint32_t receives, uint64_t send, uint32_t sends);
// vb_poll takes completions as vb_drain does, and has no other made an event.
int vb_poll(struct vb_conn *c);
// vb_drain takes completions. Where it returns 0 there are none, and the next one
// makes completion_fd readable.
int vb_drain(struct vb_conn *c);

// A device's events, which are to be acknowledged: the queue is not destroyed before.
uintptr_t vb_context(struct vb_conn *c);
uintptr_t vb_queue(struct vb_conn *c);
int vb_async_fd(uintptr_t context);
int vb_next_async(uintptr_t context, struct vb_async *a);
void vb_ack_async(const struct vb_async *a);

int vb_disconnect(struct vb_conn *c);
int vb_to_error(struct vb_conn *c);
// The queue pair goes first, so that nothing refers to any memory; then go the
// regions that Go has; then the rest, and at last the slots.
void vb_destroy_queues(struct vb_conn *c);
void vb_destroy(struct vb_conn *c);
void vb_free(struct vb_conn *c);

const char *vb_status_name(uint32_t status);

#endif
