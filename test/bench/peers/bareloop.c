/*
 * A bare loop over a TCP socket: the same bytes as SCSI reads or writes, in PDUs
 * of the same sizes, that nobody looks at. It is what a socket allows in C; its
 * twin in Go is ../limit.go, and either's client can talk to either's server.
 *
 *   bareloop server READY-FILE
 *   bareloop client HOST PORT read|write BLOCK DEPTH SECONDS
 *   bareloop uring HOST PORT read|write BLOCK DEPTH SECONDS
 *
 * uring is the client with io_uring: a write and the read of what it leads to are
 * one system call.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { HEADER = 48, BUFFER = 1 << 20, HELLO = 8, SAMPLES = 1 << 20 };

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void *memory(size_t n)
{
	void *p = malloc(n);

	if (p == NULL)
		err(1, "%zu bytes", n);
	memset(p, 1, n);
	return p;
}

/* put writes n bytes from a buffer that is used again and again. */
static int put(int fd, const char *buf, size_t size, size_t n)
{
	while (n > 0) {
		ssize_t k = write(fd, buf, n < size ? n : size);

		if (k < 0)
			return -1;
		n -= (size_t)k;
	}
	return 0;
}

static void answer(int fd)
{
	uint32_t hello[2];
	char *in = memory(BUFFER), *out = memory(BUFFER);
	size_t have = 0, ask, reply;

	if (recv(fd, hello, HELLO, MSG_WAITALL) != HELLO)
		goto end;
	ask = HEADER + (ntohl(hello[1]) ? ntohl(hello[0]) : 0);
	reply = HEADER + (ntohl(hello[1]) ? 0 : ntohl(hello[0]));
	for (;;) {
		ssize_t n = read(fd, in, BUFFER);

		if (n <= 0)
			break;
		have += (size_t)n;
		if (put(fd, out, BUFFER, have / ask * reply) < 0)
			break;
		have %= ask;
	}
end:
	free(in);
	free(out);
}

static void serve(const char *ready)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof a;
	int l = socket(AF_INET, SOCK_STREAM, 0), on = 1;
	char temporary[4096];
	FILE *f;

	signal(SIGPIPE, SIG_IGN); /* a client ends with answers under way */
	if (l < 0 || bind(l, (struct sockaddr *)&a, len) < 0 || listen(l, 8) < 0 ||
	    getsockname(l, (struct sockaddr *)&a, &len) < 0)
		err(1, "listen");
	snprintf(temporary, sizeof temporary, "%s.new", ready);
	f = fopen(temporary, "w");
	if (f == NULL || fprintf(f, "127.0.0.1:%d", ntohs(a.sin_port)) < 0 || fclose(f) != 0 ||
	    rename(temporary, ready) != 0)
		err(1, "%s", ready);
	for (;;) {
		int fd = accept(l, NULL, NULL);

		if (fd < 0)
			err(1, "accept");
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		answer(fd);
		close(fd);
	}
}

/* A ring for the two calls of one turn. */
static struct {
	int fd;
	unsigned *sq_tail, *sq_mask, *array, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
} ring;

static void *map(size_t n, off_t offset)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, offset);

	if (p == MAP_FAILED)
		err(1, "io_uring");
	return p;
}

static void ring_open(void)
{
	struct io_uring_params p = { .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN };
	char *sq, *cq;

	ring.fd = (int)syscall(SYS_io_uring_setup, 8, &p);
	if (ring.fd < 0)
		err(1, "io_uring_setup");
	sq = map(p.sq_off.array + p.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
	cq = map(p.cq_off.cqes + p.cq_entries * sizeof *ring.cqes, IORING_OFF_CQ_RING);
	ring.sqes = map(p.sq_entries * sizeof *ring.sqes, IORING_OFF_SQES);
	ring.sq_tail = (unsigned *)(sq + p.sq_off.tail);
	ring.sq_mask = (unsigned *)(sq + p.sq_off.ring_mask);
	ring.array = (unsigned *)(sq + p.sq_off.array);
	ring.cq_head = (unsigned *)(cq + p.cq_off.head);
	ring.cq_tail = (unsigned *)(cq + p.cq_off.tail);
	ring.cq_mask = (unsigned *)(cq + p.cq_off.ring_mask);
	ring.cqes = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
}

static void ring_add(unsigned char op, int fd, void *buf, size_t n, unsigned flags)
{
	unsigned tail = *ring.sq_tail, i = tail & *ring.sq_mask;

	ring.sqes[i] = (struct io_uring_sqe){ .opcode = op, .fd = fd, .addr = (uintptr_t)buf, .len = (unsigned)n,
					      .msg_flags = flags, .user_data = op };
	ring.array[i] = i;
	__atomic_store_n(ring.sq_tail, tail + 1, __ATOMIC_RELEASE);
}

/* turn sends n bytes, if there are any, and receives: one call for both. */
static ssize_t turn(int fd, char *out, size_t n, char *in, size_t room)
{
	unsigned count = 1;
	ssize_t got = 0;

	if (n > 0) {
		ring_add(IORING_OP_SEND, fd, out, n, MSG_WAITALL);
		count++;
	}
	ring_add(IORING_OP_RECV, fd, in, room, 0);
	for (unsigned submit = count; count > 0; submit = 0) {
		if (syscall(SYS_io_uring_enter, ring.fd, submit, count, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
			err(1, "io_uring_enter");
		for (unsigned head = *ring.cq_head; head != __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE); count--) {
			struct io_uring_cqe *c = &ring.cqes[head & *ring.cq_mask];

			if (c->res <= 0 || (c->user_data == IORING_OP_SEND && (size_t)c->res != n))
				errx(1, "io_uring: %s", strerror(-c->res));
			if (c->user_data == IORING_OP_RECV)
				got = c->res;
			__atomic_store_n(ring.cq_head, ++head, __ATOMIC_RELEASE);
		}
	}
	return got;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void ask(int uring, const char *host, const char *port, int writes, uint32_t block, size_t depth, double seconds)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };
	uint32_t hello[2] = { htonl(block), htonl((uint32_t)writes) };
	size_t out = HEADER + (writes ? block : 0), in = HEADER + (writes ? 0 : block);
	/* As much memory as is outstanding, as whoever wants the data has. */
	size_t room = in * depth > BUFFER ? in * depth : BUFFER, at = 0, have = 0, due = depth, n = 0, samples = 0;
	size_t outroom = out * depth > BUFFER ? out * depth : BUFFER;
	char *inbuf = memory(room), *outbuf = memory(outroom);
	double *latency = memory(SAMPLES * sizeof *latency), start, sent, t;
	int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	if (inet_pton(AF_INET, host, &a.sin_addr) != 1)
		errx(1, "%s: not an address", host);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
		err(1, "connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (put(fd, (char *)hello, HELLO, HELLO) < 0)
		err(1, "write");
	if (uring)
		ring_open();
	start = t = sent = now();
	while (t - start < seconds || n == 0) {
		ssize_t k;

		if (due > 0)
			sent = t;
		if (uring) {
			k = turn(fd, outbuf, due * out, inbuf + at, room - at);
		} else {
			if (put(fd, outbuf, outroom, due * out) < 0)
				err(1, "write");
			k = read(fd, inbuf + at, room - at);
		}
		if (k <= 0)
			errx(1, "read: the server has gone");
		at = (at + (size_t)k) % room;
		have += (size_t)k;
		due = have / in;
		have -= due * in;
		n += due;
		t = now();
		if (depth == 1 && due > 0 && samples < SAMPLES)
			latency[samples++] = t - sent;
	}
	qsort(latency, samples, sizeof *latency, by_value);
	printf("{\"requests\": %zu, \"requests_per_second\": %f, \"latency_microseconds\": {\"p50\": %f, \"p99\": %f}}\n",
	       n, (double)n / (t - start), samples ? latency[samples / 2] * 1e6 : 0,
	       samples ? latency[samples * 99 / 100] * 1e6 : 0);
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "server") == 0)
		serve(argv[2]);
	else if (argc == 8 && (strcmp(argv[1], "client") == 0 || strcmp(argv[1], "uring") == 0))
		ask(strcmp(argv[1], "uring") == 0, argv[2], argv[3], strcmp(argv[4], "write") == 0, (uint32_t)atoi(argv[5]), (size_t)atoi(argv[6]), atof(argv[7]));
	else
		errx(2, "usage: bareloop server FILE | client|uring HOST PORT read|write BLOCK DEPTH SECONDS");
	return 0;
}
