/*
 * The load of iscsibench with libiscsi: so many reads or writes outstanding in
 * each of some sessions, or at a fixed rate, from and to memory of its own for
 * each request. libiscsi's iscsi-perf only reads, in one session.
 *
 *   libiscsiload PORTAL TARGET INITIATOR LUN,... randread|randwrite|read|write
 *                BLOCK DEPTH SESSIONS RATE SECONDS
 */
#define _GNU_SOURCE
#include <err.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

enum { SESSIONS = 16, LUNS = 16, SAMPLES = 1 << 22 };

struct session;

struct request {
	struct session *session;
	struct request *next; /* with a rate: those that wait to be due */
	int lun;
	char *data;
	struct scsi_iovec iov;
	double began;
};

struct session {
	struct iscsi_context *iscsi;
	uint64_t next; /* the LBA that a sequential request begins at */
};

static struct session sessions[SESSIONS];
static struct request *idle;
static int luns[LUNS], nluns, writes, randomly, nsessions, stopped, outstanding;
static uint32_t block, length; /* of a request and of a block of the unit, in bytes */
static uint64_t slots;
static double rate, seconds, start;
static uint64_t done, samples;
static float *latency;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static uint64_t any(uint64_t below)
{
	static uint64_t state = 88172645463325252ULL;

	state ^= state << 13; /* xorshift64 */
	state ^= state >> 7;
	state ^= state << 17;
	return state % below;
}

static void submit(struct request *r, double began);

static void ended(struct iscsi_context *iscsi, int status, void *data, void *private)
{
	struct request *r = private;
	double t = now();

	if (status != SCSI_STATUS_GOOD)
		errx(1, "a request has failed: %s", iscsi_get_error(iscsi));
	scsi_free_scsi_task(data);
	done++;
	outstanding--;
	if (samples < SAMPLES)
		latency[samples++] = (float)((t - r->began) * 1e6);
	if (t - start >= seconds)
		stopped = 1;
	if (stopped)
		return;
	if (rate > 0) {
		r->next = idle;
		idle = r;
	} else {
		submit(r, t);
	}
}

static void submit(struct request *r, double began)
{
	struct session *s = r->session;
	uint32_t blocks = block / length;
	uint64_t lba = (randomly ? any(slots) : s->next++ % slots) * blocks;
	struct scsi_task *task;

	r->began = began;
	r->iov.iov_base = r->data;
	r->iov.iov_len = block;
	if (writes)
		task = iscsi_write16_iov_task(s->iscsi, r->lun, lba, NULL, block, (int)length, 0, 0, 0, 0, 0, ended, r, &r->iov, 1);
	else
		task = iscsi_read16_iov_task(s->iscsi, r->lun, lba, block, (int)length, 0, 0, 0, 0, 0, ended, r, &r->iov, 1);
	if (task == NULL)
		errx(1, "%s", iscsi_get_error(s->iscsi));
	outstanding++;
}

static void login(struct session *s, int number, const char *portal, const char *target, const char *initiator)
{
	struct scsi_task *task;
	struct scsi_readcapacity16 *size;

	s->iscsi = iscsi_create_context(initiator);
	if (s->iscsi == NULL)
		errx(1, "no context");
	iscsi_set_isid_random(s->iscsi, (uint32_t)number, 0);
	iscsi_set_targetname(s->iscsi, target);
	iscsi_set_session_type(s->iscsi, ISCSI_SESSION_NORMAL);
	iscsi_set_header_digest(s->iscsi, ISCSI_HEADER_DIGEST_NONE);
	if (iscsi_full_connect_sync(s->iscsi, portal, luns[0]) != 0)
		errx(1, "login: %s", iscsi_get_error(s->iscsi));
	for (int i = 0; i < nluns; i++) {
		do { /* unit attentions */
			task = iscsi_readcapacity16_sync(s->iscsi, luns[i]);
			if (task == NULL)
				errx(1, "capacity: %s", iscsi_get_error(s->iscsi));
			size = task->status == SCSI_STATUS_GOOD ? scsi_datain_unmarshall(task) : NULL;
			if (size != NULL) {
				length = size->block_length;
				slots = (size->returned_lba + 1) / (block / length);
			}
			scsi_free_scsi_task(task);
		} while (size == NULL);
	}
	s->next = slots / (uint64_t)nsessions * (uint64_t)number;
}

/* pace submits what is due, and says how long to wait; NULL: for an answer. */
static struct timespec *pace(void)
{
	static struct timespec wait;
	static double due;
	double t = now() - start;

	if (t >= seconds)
		stopped = 1;
	while (!stopped && idle != NULL && due <= t) {
		struct request *r = idle;

		idle = r->next;
		submit(r, start + due);
		due += 1 / rate;
	}
	if (outstanding > 0 && (stopped || idle == NULL))
		return NULL;
	wait.tv_nsec = !stopped && due > t ? (long)((due - t < 0.5 ? due - t : 0.5) * 1e9) : 0;
	return &wait;
}

static int by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

static double quantile(double q)
{
	return samples ? latency[(uint64_t)(q * (double)(samples - 1))] : 0;
}

int main(int argc, char **argv)
{
	struct pollfd fds[SESSIONS];
	struct timespec *wait = NULL;
	int depth;
	double elapsed;

	if (argc != 11)
		errx(2, "usage: libiscsiload PORTAL TARGET INITIATOR LUNS MODE BLOCK DEPTH SESSIONS RATE SECONDS");
	for (char *p = strtok(argv[4], ","); p != NULL && nluns < LUNS; p = strtok(NULL, ","))
		luns[nluns++] = atoi(p);
	randomly = strncmp(argv[5], "rand", 4) == 0;
	writes = strstr(argv[5], "write") != NULL;
	block = (uint32_t)atoi(argv[6]);
	depth = atoi(argv[7]);
	nsessions = atoi(argv[8]);
	rate = atof(argv[9]);
	seconds = atof(argv[10]);
	if (nluns < 1 || nsessions < 1 || nsessions > SESSIONS || depth < 1 || block < 512)
		errx(2, "a number is out of range");
	latency = malloc(SAMPLES * sizeof *latency);
	if (latency == NULL)
		err(1, "memory");
	for (int i = 0; i < nsessions; i++)
		login(&sessions[i], i, argv[1], argv[2], argv[3]);
	prctl(PR_SET_TIMERSLACK, 1);
	start = now();
	for (int i = 0; i < nsessions * depth; i++) {
		struct request *r = calloc(1, sizeof *r);

		if (r == NULL || posix_memalign((void **)&r->data, 4096, block) != 0)
			err(1, "memory");
		memset(r->data, i, block);
		r->session = &sessions[i % nsessions];
		r->lun = luns[i % nluns];
		if (rate > 0) {
			r->next = idle;
			idle = r;
		} else {
			submit(r, now());
		}
	}
	while (!stopped || outstanding > 0) {
		if (rate > 0)
			wait = pace();
		for (int i = 0; i < nsessions; i++) {
			fds[i].fd = iscsi_get_fd(sessions[i].iscsi);
			fds[i].events = (short)iscsi_which_events(sessions[i].iscsi);
		}
		if (ppoll(fds, (nfds_t)nsessions, wait, NULL) < 0)
			err(1, "poll");
		for (int i = 0; i < nsessions; i++)
			if (fds[i].revents != 0 && iscsi_service(sessions[i].iscsi, fds[i].revents) < 0)
				errx(1, "%s", iscsi_get_error(sessions[i].iscsi));
	}
	elapsed = now() - start;
	for (int i = 0; i < nsessions; i++)
		iscsi_logout_sync(sessions[i].iscsi);
	qsort(latency, samples, sizeof *latency, by_value);
	printf("{\"requests\": %llu, \"requests_per_second\": %f, \"latency_microseconds\": "
	       "{\"p50\": %f, \"p99\": %f, \"p99_9\": %f}}\n",
	       (unsigned long long)done, (double)done / elapsed, quantile(0.5), quantile(0.99), quantile(0.999));
	return 0;
}
