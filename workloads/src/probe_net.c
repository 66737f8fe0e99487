/* Passing bytes: between two processes here, and to a server on another machine. */
#define _GNU_SOURCE
#include "probe.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BLOCK = 65536 }; /* lmbench moves 64 KiB at a time, too */
static char block[BLOCK];

/* --- what the other end does: until the stream ends --------------------------------------------- */

static void serve_echo(int in, int out) {
    char byte;
    while (read_full(in, &byte, 1) == 1) write_full(out, &byte, 1);
}

static void serve_bytes(int in, int out) {
    uint64_t asked;
    while (read_full(in, &asked, sizeof asked) == sizeof asked)
        for (uint64_t left = le64toh(asked); left > 0;) {
            size_t n = left < BLOCK ? (size_t)left : BLOCK;
            write_full(out, block, n);
            left -= n;
        }
}

static void serve_sink(int in, int out) {
    uint64_t announced;
    while (read_full(in, &announced, sizeof announced) == sizeof announced) {
        for (uint64_t left = le64toh(announced); left > 0;) {
            ssize_t n = read(in, block, left < BLOCK ? (size_t)left : BLOCK);
            if (n <= 0) return;
            left -= (uint64_t)n;
        }
        write_full(out, "", 1);
    }
}

/* --- the measuring end -------------------------------------------------------------------------- */

static double echo_batch(uint64_t work, void *state) {
    struct channel *c = state;
    char byte = 0;
    double start = now();
    for (uint64_t i = 0; i < work; i++) {
        write_full(c->pw, &byte, 1);
        if (read_full(c->pr, &byte, 1) != 1) wrong_result("the other end left");
    }
    return now() - start;
}

static double pull_batch(uint64_t work, void *state) {
    struct channel *c = state;
    uint64_t asked = htole64(work << 20);
    double start = now();
    write_full(c->pw, &asked, sizeof asked);
    for (uint64_t left = work << 20; left > 0;) {
        ssize_t n = read(c->pr, block, left < BLOCK ? (size_t)left : BLOCK);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) die("read");
        if (n == 0) wrong_result("the other end left");
        left -= (uint64_t)n;
    }
    return now() - start;
}

static double push_batch(uint64_t work, void *state) {
    struct channel *c = state;
    uint64_t announced = htole64(work << 20);
    char byte;
    double start = now();
    write_full(c->pw, &announced, sizeof announced);
    for (uint64_t left = work << 20; left > 0; left -= BLOCK) write_full(c->pw, block, BLOCK);
    if (read_full(c->pr, &byte, 1) != 1) wrong_result("the other end left");
    return now() - start;
}

/* --- addresses ---------------------------------------------------------------------------------- */

static void no_delay(int fd) {
    int one = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0) die("TCP_NODELAY");
}

static socklen_t make_address(struct sockaddr_storage *to, const char *text, uint64_t port) {
    struct sockaddr_in *v4 = (struct sockaddr_in *)to;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)to;
    memset(to, 0, sizeof *to);
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        return sizeof *v4;
    }
    if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        return sizeof *v6;
    }
    usage_error("'%s' is not a numeric IP address", text);
}

static int listen_on(const char *address, uint64_t port, uint64_t *chosen) {
    struct sockaddr_storage where;
    socklen_t size = make_address(&where, address, port);
    int one = 1, fd = socket(where.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&where, size) != 0 || listen(fd, 16) != 0) die(address);
    size = sizeof where;
    if (getsockname(fd, (struct sockaddr *)&where, &size) != 0) die("getsockname");
    *chosen = ntohs(((struct sockaddr_in *)&where)->sin_port); /* at the same place in IPv6 */
    return fd;
}

static int connect_to(const char *address, uint64_t port) {
    struct sockaddr_storage where;
    socklen_t size = make_address(&where, address, port);
    int fd = socket(where.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    if (connect(fd, (struct sockaddr *)&where, size) != 0) die(address);
    no_delay(fd);
    return fd;
}

void open_tcp_pair(int fds[2]) {
    uint64_t port;
    int listener = listen_on("127.0.0.1", 0, &port);
    fds[0] = connect_to("127.0.0.1", port);
    if ((fds[1] = accept(listener, NULL, NULL)) < 0) die("accept");
    close(listener);
    no_delay(fds[1]);
}

/* --- two processes on one machine --------------------------------------------------------------- */

enum kind { PIPE, UNIX, TCP };

static struct channel open_channel(enum kind kind) {
    int there[2], back[2], pair[2];
    if (kind == PIPE) {
        if (pipe(there) != 0 || pipe(back) != 0) die("pipe");
        return (struct channel){back[0], there[1], there[0], back[1]};
    }
    if (kind == TCP)
        open_tcp_pair(pair);
    else if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        die("socketpair");
    return (struct channel){pair[0], pair[0], pair[1], pair[1]};
}

static int between_processes(const struct options *o, enum kind kind, int bandwidth) {
    struct channel c = open_channel(kind);
    struct series s;
    int pinned = bandwidth ? 0 : pin_to_one_cpu(o);
    pid_t pid = fork();
    if (pid < 0) die("fork");
    if (pid == 0) {
        close(c.pr), close(c.pw);
        bandwidth ? serve_bytes(c.cr, c.cw) : serve_echo(c.cr, c.cw);
        _exit(0);
    }
    close(c.cr), close(c.cw);
    measure(&s, o, bandwidth ? pull_batch : echo_batch, &c);
    close(c.pr), close(c.pw);
    reap(pid);
    report(o, bandwidth ? "MiB/s" : "s", &s, bandwidth ? rate(1, &s) : median(&s));
    field("pinned", pinned);
    report_end();
    return 0;
}

int run_pipelat(const struct options *o) { return between_processes(o, PIPE, 0); }
int run_unixlat(const struct options *o) { return between_processes(o, UNIX, 0); }
int run_tcplat(const struct options *o) { return between_processes(o, TCP, 0); }
int run_pipebw(const struct options *o) { return between_processes(o, PIPE, 1); }
int run_unixbw(const struct options *o) { return between_processes(o, UNIX, 1); }
int run_tcpbw(const struct options *o) { return between_processes(o, TCP, 1); }

/* --- client and server -------------------------------------------------------------------------- */

struct trips {
    struct channel c;
    double *seconds; /* of each round trip of the measured batches */
    uint64_t count, room;
};

static double trips_batch(uint64_t work, void *state) {
    struct trips *t = state;
    char byte = 0;
    int keep = t->count + work <= t->room;
    double start = now(), last = start;
    for (uint64_t i = 0; i < work; i++) {
        write_full(t->c.pw, &byte, 1);
        if (read_full(t->c.pr, &byte, 1) != 1) wrong_result("the server left");
        double end = now();
        if (keep) t->seconds[t->count++] = end - last > timer_cost ? end - last - timer_cost : 0.0;
        last = end;
    }
    return last - start - timer_cost * (double)(work - 1);
}

static int by_time(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The nearest-rank percentile: an observed value, never an interpolated one. Per mille. */
static double rank(const double *sorted, uint64_t n, uint64_t mille) {
    uint64_t place = (n * mille + 999) / 1000;
    return sorted[place ? place - 1 : 0];
}

int run_tcprr(const struct options *o) {
    if (o->work > 10000000) usage_error("tcprr keeps every round trip: --work at most 10000000");
    struct trips t = {.room = 0};
    struct series s;
    double sum = 0;
    int fd = connect_to(o->connect, o->port);
    write_full(fd, "e", 1);
    t.c = (struct channel){fd, fd, -1, -1};
    memset(&s, 0, sizeof s);
    t.seconds = malloc(o->work * o->batches * sizeof *t.seconds);
    if (!t.seconds) die("malloc");
    trips_batch(o->work / 8 + 1, &t); /* warm-up: there is no room yet, so nothing is kept */
    t.room = o->work * o->batches;
    for (uint64_t i = 0; i < o->batches; i++) add_batch(&s, trips_batch(o->work, &t), o->work);
    for (uint64_t i = 0; i < t.count; i++) sum += t.seconds[i];
    qsort(t.seconds, t.count, sizeof *t.seconds, by_time);
    report(o, "us", &s, 1e6 * median(&s));
    field("mean", 1e6 * sum / (double)t.count);
    field("p50", 1e6 * rank(t.seconds, t.count, 500));
    field("p90", 1e6 * rank(t.seconds, t.count, 900));
    field("p99", 1e6 * rank(t.seconds, t.count, 990));
    field("p99.9", 1e6 * rank(t.seconds, t.count, 999));
    field("samples", (double)t.count);
    report_end();
    return 0;
}

/* Messages of one byte each way, a packet each (TCP_NODELAY), several of them on their way: one operation is a
 * message and its answer. The cost of packets where nobody waits for a single one. */
struct flow {
    int fd;
    uint64_t window;
};

static double small_batch(uint64_t work, void *state) {
    struct flow *f = state;
    uint64_t sent = 0, answered = 0;
    char bytes[1024] = {0};
    double start = now();
    for (; sent < work && sent < f->window; sent++) write_full(f->fd, bytes, 1);
    while (answered < work) {
        ssize_t n = read(f->fd, bytes, sizeof bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) die("read");
        if (n == 0) wrong_result("the server left");
        answered += (uint64_t)n;
        for (; n > 0 && sent < work; n--, sent++) write_full(f->fd, bytes, 1);
    }
    return now() - start;
}

int run_tcpsmall(const struct options *o) {
    struct flow f = {connect_to(o->connect, o->port), o->window ? o->window : 16};
    struct series s;
    write_full(f.fd, "e", 1);
    measure(&s, o, small_batch, &f);
    report(o, "1/s", &s, rate(1, &s));
    field("window", (double)f.window);
    report_end();
    return 0;
}

int run_tcpbulk(const struct options *o) {
    const char *direction = o->direction ? o->direction : "up";
    int up = strcmp(direction, "up") == 0;
    if (!up && strcmp(direction, "down") != 0) usage_error("--direction takes up or down, not '%s'", direction);
    int fd = connect_to(o->connect, o->port);
    struct channel c = {fd, fd, -1, -1};
    struct series s;
    write_full(fd, up ? "s" : "b", 1);
    measure(&s, o, up ? push_batch : pull_batch, &c);
    report(o, "MiB/s", &s, rate(1, &s));
    field_text("direction", direction);
    report_end();
    return 0;
}

/* One process for each connection. The first byte of a connection says which service it wants. */
int run_tcpserver(const struct options *o) {
    uint64_t port;
    int listener = listen_on(o->listen, o->port, &port);
    pid_t parent = getpid();
    signal(SIGCHLD, SIG_IGN); /* nobody waits for them */
    printf("{\"port\": %llu, \"ready\": true}\n", (unsigned long long)port);
    if (fflush(stdout) != 0) die("standard output");
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
        if (fd < 0) die("accept");
        pid_t pid = fork();
        if (pid < 0) die("fork");
        if (pid == 0) {
            char service;
            prctl(PR_SET_PDEATHSIG, SIGKILL); /* a connection does not outlive the server */
            if (getppid() != parent) _exit(1);
            close(listener);
            no_delay(fd);
            if (read_full(fd, &service, 1) != 1) _exit(0);
            if (service == 'e') serve_echo(fd, fd);
            if (service == 'b') serve_bytes(fd, fd);
            if (service == 's') serve_sink(fd, fd);
            _exit(0);
        }
        close(fd);
    }
}
