/* vbench-probe: what its parts share. The overview is in probe.c. */
#ifndef VBENCH_PROBE_H
#define VBENCH_PROBE_H

#include <stddef.h>
#include <stdint.h>

#define MAX_BATCHES 64
#define MIB 1048576.0

/* Options of the command line; each subcommand takes only those that its entry in probe.c names. */
struct options {
    const char *name;
    uint64_t work;    /* operations in a batch */
    uint64_t batches; /* measured batches */
    uint64_t kib, mib, stride, procs, fds, usec, window, port, pin;
    const char *dir, *listen, *connect, *direction;
    char **command; /* what follows "--", or NULL */
};

/* One series of batches, each in seconds per operation. */
struct series {
    size_t count;
    double per_op[MAX_BATCHES];
    double seconds; /* spent in measured batches */
};

/* Run `work` operations; return the seconds they took, one reading of the clock included. */
typedef double (*batch_fn)(uint64_t work, void *state);

extern double timer_cost; /* seconds that one pair of clock readings adds to an interval */

double now(void);
void measure(struct series *series, const struct options *o, batch_fn batch, void *state);
void add_batch(struct series *series, double seconds, uint64_t work);
double median(const struct series *series);
double rate(double amount, const struct series *series); /* amount per second; 0 when no time passed */

/* Print the fixed fields; then any number of extra ones; then close the object. */
void report(const struct options *o, const char *unit, const struct series *series, double value);
void field(const char *name, double value);
void field_text(const char *name, const char *value);
void report_end(void);

_Noreturn void die(const char *what);                        /* exit 1, with errno's text */
_Noreturn void usage_error(const char *format, ...) __attribute__((format(printf, 1, 2))); /* exit 2 */
_Noreturn void wrong_result(const char *what);               /* exit 3 */

void *map_pages(size_t bytes, int huge);
size_t read_full(int fd, void *buffer, size_t size); /* short only at the end of the stream */
void write_full(int fd, const void *buffer, size_t size);
void enter_directory(const struct options *o);
int pin_to_one_cpu(const struct options *o); /* 1 when pinned */
void reap(int pid);                          /* wait for a child that must end with 0 */

int run_int(const struct options *o);
int run_float(const struct options *o);
int run_clock(const struct options *o);
int run_sleep(const struct options *o);
int run_membw(const struct options *o);
int run_memlat(const struct options *o);
int run_alloc(const struct options *o);
int run_mmap(const struct options *o);
int run_pagefault(const struct options *o);
int run_protfault(const struct options *o);
int run_nullcall(const struct options *o);
int run_read1(const struct options *o);
int run_write1(const struct options *o);
int run_stat(const struct options *o);
int run_openclose(const struct options *o);
int run_select(const struct options *o);
int run_siginstall(const struct options *o);
int run_sigdeliver(const struct options *o);
int run_create(const struct options *o);
int run_forkexit(const struct options *o);
int run_forkexec(const struct options *o);
int run_exec(const struct options *o);
int run_source(const struct options *o);
int run_ctxsw(const struct options *o);
int run_pipelat(const struct options *o);
int run_unixlat(const struct options *o);
int run_tcplat(const struct options *o);
int run_pipebw(const struct options *o);
int run_unixbw(const struct options *o);
int run_tcpbw(const struct options *o);
int run_tcprr(const struct options *o);
int run_tcpsmall(const struct options *o);
int run_tcpbulk(const struct options *o);
int run_tcpserver(const struct options *o);

/* A connected pair: the parent reads and writes p*, its child c*. */
struct channel {
    int pr, pw, cr, cw;
};
void open_tcp_pair(int fds[2]);

#endif
