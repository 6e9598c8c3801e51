//go:build linux && cgo && rdma

#define _GNU_SOURCE // for dlvsym
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "shim_library.h"

struct vb_library vb;

// Where a library has several versions of a function, this is the one that the
// headers are about.
#define IBVERBS "IBVERBS_1.1"

static void *find(void *library, const char *name, const char *version)
{
	void *f = dlvsym(library, name, version);
	return f ? f : dlsym(library, name);
}

#define FIND(library, field, name, version) \
	do { \
		*(void **)&vb.field = find(library, name, version); \
		if (!vb.field) { \
			snprintf(error, size, "%s is missing", name); \
			return -1; \
		} \
	} while (0)

// vb_load opens the libraries, which are not linked to, so that a program runs
// without them. It is called once.
int vb_load(char *error, unsigned size)
{
	void *verbs = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_GLOBAL);
	void *cm = verbs ? dlopen("librdmacm.so.1", RTLD_NOW | RTLD_LOCAL) : NULL;
	if (!verbs || !cm) {
		snprintf(error, size, "%s", dlerror());
		return -1;
	}
	FIND(verbs, alloc_pd, "ibv_alloc_pd", IBVERBS);
	FIND(verbs, dealloc_pd, "ibv_dealloc_pd", IBVERBS);
	FIND(verbs, reg_mr, "ibv_reg_mr", IBVERBS);
	FIND(verbs, dereg_mr, "ibv_dereg_mr", IBVERBS);
	FIND(verbs, create_comp_channel, "ibv_create_comp_channel", "IBVERBS_1.0");
	FIND(verbs, destroy_comp_channel, "ibv_destroy_comp_channel", "IBVERBS_1.0");
	FIND(verbs, create_cq, "ibv_create_cq", IBVERBS);
	FIND(verbs, destroy_cq, "ibv_destroy_cq", IBVERBS);
	FIND(verbs, get_cq_event, "ibv_get_cq_event", IBVERBS);
	FIND(verbs, ack_cq_events, "ibv_ack_cq_events", IBVERBS);
	FIND(verbs, query_device, "ibv_query_device", IBVERBS);
	FIND(verbs, query_port, "ibv_query_port", IBVERBS);
	FIND(verbs, query_gid, "ibv_query_gid", IBVERBS);
	FIND(verbs, modify_qp, "ibv_modify_qp", IBVERBS);
	FIND(verbs, get_device_name, "ibv_get_device_name", IBVERBS);
	FIND(verbs, get_async_event, "ibv_get_async_event", IBVERBS);
	FIND(verbs, ack_async_event, "ibv_ack_async_event", IBVERBS);
	FIND(verbs, wc_status_str, "ibv_wc_status_str", IBVERBS);

	FIND(cm, create_event_channel, "rdma_create_event_channel", "RDMACM_1.0");
	FIND(cm, destroy_event_channel, "rdma_destroy_event_channel", "RDMACM_1.0");
	FIND(cm, create_id, "rdma_create_id", "RDMACM_1.0");
	FIND(cm, destroy_id, "rdma_destroy_id", "RDMACM_1.0");
	FIND(cm, migrate_id, "rdma_migrate_id", "RDMACM_1.0");
	FIND(cm, bind_addr, "rdma_bind_addr", "RDMACM_1.0");
	FIND(cm, listen, "rdma_listen", "RDMACM_1.0");
	FIND(cm, set_option, "rdma_set_option", "RDMACM_1.0");
	FIND(cm, resolve_addr, "rdma_resolve_addr", "RDMACM_1.0");
	FIND(cm, resolve_route, "rdma_resolve_route", "RDMACM_1.0");
	FIND(cm, create_qp, "rdma_create_qp", "RDMACM_1.0");
	FIND(cm, destroy_qp, "rdma_destroy_qp", "RDMACM_1.0");
	FIND(cm, connect, "rdma_connect", "RDMACM_1.0");
	FIND(cm, accept, "rdma_accept", "RDMACM_1.0");
	FIND(cm, reject, "rdma_reject", "RDMACM_1.0");
	FIND(cm, disconnect, "rdma_disconnect", "RDMACM_1.0");
	FIND(cm, get_cm_event, "rdma_get_cm_event", "RDMACM_1.0");
	FIND(cm, ack_cm_event, "rdma_ack_cm_event", "RDMACM_1.0");
	return 0;
}

const char *vb_status_name(uint32_t status)
{
	return vb.wc_status_str(status);
}
