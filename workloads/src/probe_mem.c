/* Memory: bandwidth, latency, allocation, and the page tables behind it. */
#define _GNU_SOURCE
#include "probe.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Without this, gcc turns the copy into memcpy, whose code depends on the processor that is visible. */
#define PLAIN_LOOP __attribute__((noinline, optimize("no-tree-loop-distribute-patterns")))

PLAIN_LOOP static void copy(double *restrict a, const double *restrict b, size_t n) {
    for (size_t i = 0; i < n; i++) a[i] = b[i];
}
PLAIN_LOOP static void scale(double *restrict a, const double *restrict b, double k, size_t n) {
    for (size_t i = 0; i < n; i++) a[i] = k * b[i];
}
PLAIN_LOOP static void add(double *restrict a, const double *restrict b, const double *restrict c, size_t n) {
    for (size_t i = 0; i < n; i++) a[i] = b[i] + c[i];
}
PLAIN_LOOP static void triad(double *restrict a, const double *restrict b, const double *restrict c, double k,
                             size_t n) {
    for (size_t i = 0; i < n; i++) a[i] = b[i] + k * c[i];
}

/* STREAM's four kernels on one thread. One operation is one pass of each kernel over its arrays. As STREAM
 * does, count the bytes that the program names (2 or 3 arrays), not what the cache fetches besides. */
int run_membw(const struct options *o) {
    static const char *names[4] = {"copy", "scale", "add", "triad"};
    static const double arrays[4] = {2, 2, 3, 3};
    const double k = 0.41421356237309503; /* sqrt(2) - 1: a round multiplies a by 2k + k*k = 1 */
    double mib = (double)(o->mib ? o->mib : 32);
    size_t n = (size_t)(mib * MIB) / sizeof(double);
    double *a = map_pages(n * sizeof *a, 1), *b = map_pages(n * sizeof *b, 1), *c = map_pages(n * sizeof *c, 1);
    struct series s[4];
    memset(s, 0, sizeof s);
    for (size_t i = 0; i < n; i++) a[i] = 1.0, b[i] = 2.0, c[i] = 0.0;

    for (uint64_t batch = 0; batch <= o->batches; batch++) {
        double spent[4] = {0};
        uint64_t passes = batch ? o->work : 1; /* the first is the warm-up */
        for (uint64_t pass = 0; pass < passes; pass++) {
            double t0 = now();
            copy(c, a, n);
            double t1 = now();
            scale(b, c, k, n);
            double t2 = now();
            add(c, a, b, n);
            double t3 = now();
            triad(a, b, c, k, n);
            double t4 = now();
            double x = a[n / 2];
            if (a[0] != x || a[n - 1] != x || !(x > 0.99 && x < 1.01)) wrong_result("membw: the arrays hold wrong values");
            spent[0] += t1 - t0, spent[1] += t2 - t1, spent[2] += t3 - t2, spent[3] += t4 - t3;
        }
        for (int i = 0; i < 4 && batch; i++)
            add_batch(&s[i], spent[i] - timer_cost * (double)(passes - 1), passes);
    }
    double total = s[0].seconds + s[1].seconds + s[2].seconds + s[3].seconds;
    struct series shown = s[3];
    shown.seconds = total;
    report(o, "MiB/s", &shown, rate(3 * mib, &s[3]));
    for (int i = 0; i < 4; i++) field(names[i], rate(arrays[i] * mib, &s[i]));
    field("mib", mib);
    report_end();
    return 0;
}

/* A chain of pointers through the whole working set, in one random cycle (Sattolo's algorithm), so neither
 * prefetching nor overlap helps: lmbench's lat_mem_rd, in random order. Small pages are asked for, so that a
 * stride of 4096 shows the reach of the TLB and the cost of a page walk. */
static double chase_batch(uint64_t work, void *state) {
    void **p = *(void ***)state;
    double start = now();
    for (uint64_t i = 0; i < work; i++) {
        p = (void **)*p;
        __asm__ volatile("" : "+r"(p));
    }
    double seconds = now() - start;
    *(void ***)state = p;
    return seconds;
}

static uint64_t random_below(uint64_t *x, uint64_t limit) {
    *x ^= *x << 13, *x ^= *x >> 7, *x ^= *x << 17;
    return *x % limit;
}

int run_memlat(const struct options *o) {
    size_t bytes = (size_t)(o->kib ? o->kib : 65536) * 1024, stride = o->stride ? o->stride : 64;
    size_t n = bytes / stride;
    if (n < 2 || stride % sizeof(void *)) usage_error("memlat needs --stride in steps of 8, and --kib of two strides");
    char *base = map_pages(bytes, 0);
    size_t *order = malloc(n * sizeof *order);
    if (!order) die("malloc");
    uint64_t x = 88172645463325252u;
    for (size_t i = 0; i < n; i++) order[i] = i;
    for (size_t i = n - 1; i > 0; i--) {
        size_t j = random_below(&x, i), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    /* From a stride of 128 on, move each element by another line, or all would fall into few cache sets. */
#define PLACE(i) (base + (i) * stride + ((i) * 64 % stride) / 8 * 8)
    for (size_t i = 0; i < n; i++) *(void **)PLACE(i) = PLACE(order[i]);
    void **at = (void **)PLACE(0);
    struct series s;
    measure(&s, o, chase_batch, &at);
    if (!at) wrong_result("memlat: the chain is broken");
    report(o, "s", &s, median(&s));
    field("kib", (double)(bytes / 1024));
    field("stride", (double)stride);
    report_end();
    return 0;
}

/* One operation: free a random one of 1024 blocks, allocate another of 16 to 4096 bytes, write its ends. */
static double alloc_batch(uint64_t work, void *state) {
    char **slots = state;
    uint64_t x = 88172645463325252u;
    double start = now();
    for (uint64_t i = 0; i < work; i++) {
        size_t slot = random_below(&x, 1024), size = 16 + random_below(&x, 4081);
        free(slots[slot]);
        char *block = slots[slot] = malloc(size);
        if (!block) die("malloc");
        block[0] = block[size - 1] = 1;
    }
    return now() - start;
}

int run_alloc(const struct options *o) {
    static char *slots[1024];
    struct series s;
    measure(&s, o, alloc_batch, slots);
    report(o, "s", &s, median(&s));
    report_end();
    return 0;
}

/* mmap, first touch of one page, munmap. lmbench maps a file; this is anonymous memory. */
static double mmap_batch(uint64_t work, void *state) {
    size_t bytes = *(size_t *)state;
    double start = now();
    for (uint64_t i = 0; i < work; i++) {
        char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) die("mmap");
        *(volatile char *)p = 1;
        if (munmap(p, bytes) != 0) die("munmap");
    }
    return now() - start;
}

int run_mmap(const struct options *o) {
    size_t bytes = (size_t)(o->kib ? o->kib : 64) * 1024;
    struct series s;
    measure(&s, o, mmap_batch, &bytes);
    report(o, "s", &s, median(&s));
    field("kib", (double)(bytes / 1024));
    report_end();
    return 0;
}

/* First touch of an anonymous page: trap, allocation, zeroing, page table entry. lmbench faults in a file;
 * today's kernels map 16 pages of a file at one fault, which hides the cost of one. */
enum { CHUNK = 1024 }; /* pages dropped and touched again in one timed stretch */

static double pagefault_batch(uint64_t work, void *state) {
    char *base = state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    double seconds = timer_cost; /* add_batch takes one off; the others come off here */
    for (uint64_t left = work; left > 0;) {
        size_t n = left < CHUNK ? (size_t)left : CHUNK;
        if (madvise(base, CHUNK * page, MADV_DONTNEED) != 0) die("madvise");
        *(volatile char *)(base + CHUNK * page) = 1; /* the spare page pays for the page table itself */
        double start = now();
        for (size_t i = 0; i < n; i++) *(volatile char *)(base + i * page) = 1;
        seconds += now() - start - timer_cost;
        left -= n;
    }
    return seconds;
}

int run_pagefault(const struct options *o) {
    struct series s;
    measure(&s, o, pagefault_batch, map_pages((CHUNK + 1) * (size_t)sysconf(_SC_PAGESIZE), 0));
    report(o, "s", &s, median(&s));
    report_end();
    return 0;
}

/* A store to a read-only page, delivered as SIGSEGV. The handler only counts and returns, so the store faults
 * again; after the last one it makes the page writable. Nothing but faults and deliveries is timed. */
static volatile uint64_t faults_left;
static char *guarded;
static size_t guarded_size;

static void on_fault(int number) {
    (void)number;
    if (--faults_left == 0 && mprotect(guarded, guarded_size, PROT_READ | PROT_WRITE) != 0) _exit(1);
}

static double protfault_batch(uint64_t work, void *state) {
    (void)state;
    if (mprotect(guarded, guarded_size, PROT_READ) != 0) die("mprotect");
    faults_left = work;
    double start = now();
    *(volatile char *)guarded = 1;
    return now() - start;
}

int run_protfault(const struct options *o) {
    struct sigaction action = {.sa_handler = on_fault};
    struct series s;
    guarded_size = (size_t)sysconf(_SC_PAGESIZE);
    guarded = map_pages(guarded_size, 0);
    if (sigaction(SIGSEGV, &action, NULL) != 0) die("sigaction");
    measure(&s, o, protfault_batch, NULL);
    report(o, "s", &s, median(&s));
    report_end();
    return 0;
}
