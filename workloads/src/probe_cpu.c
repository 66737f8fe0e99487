/* Work that stays in the processor: a layer that runs user code directly should cost nothing here. */
#define _GNU_SOURCE
#include "probe.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* A computation with a checksum: the same amount of work must give the same sum, batch after batch. */
struct checked {
    uint64_t work, sum;
    uint64_t (*compute)(uint64_t work);
};

static double checked_batch(uint64_t work, void *state) {
    struct checked *c = state;
    double start = now();
    uint64_t sum = c->compute(work);
    double seconds = now() - start;
    if (work == c->work) {
        if (c->sum && sum != c->sum) wrong_result("two batches of the same work differ");
        c->sum = sum;
    }
    return seconds;
}

static int run_checked(const struct options *o, uint64_t (*compute)(uint64_t), uint64_t known_work,
                       uint64_t known_sum) {
    struct checked c = {.work = o->work, .compute = compute};
    struct series s;
    char text[17];
    uint64_t sum = compute(known_work);
    if (sum != known_sum) {
        snprintf(text, sizeof text, "%016llx", (unsigned long long)sum);
        wrong_result(text);
    }
    measure(&s, o, checked_batch, &c);
    report(o, "s", &s, median(&s));
    snprintf(text, sizeof text, "%016llx", (unsigned long long)c.sum);
    field_text("checksum", text);
    report_end();
    return 0;
}

/* One operation: a step of a 64-bit xorshift generator (G. Marsaglia, 2003), whose bits choose between a
 * multiply-add and a shift-xor: dependent throughout, and the branch cannot be predicted. */
static uint64_t integer_mix(uint64_t work) {
    uint64_t x = 88172645463325252u, sum = 1;
    for (uint64_t i = 0; i < work; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        if (x & 0x400) {
            sum = sum * 6364136223846793005u + x;
            __asm__ volatile("" : "+r"(sum)); /* keeps it a branch, not a conditional move */
        } else {
            sum ^= x >> 3;
        }
        sum = (sum << 5) | (sum >> 59);
    }
    return sum;
}

int run_int(const struct options *o) { return run_checked(o, integer_mix, 1000, 0x9fcd2f9e62a459e2u); }

/* One operation: LU factorization with partial pivoting and solution of a 48 x 48 system, the method of the
 * LINPACK benchmark (J. Dongarra); 78 thousand floating-point operations in 18 KiB. Only + - * / and
 * comparisons, all exact in IEEE 754, so every correct machine gives the same bits. */
enum { ORDER = 48 };

static uint64_t solve(uint64_t seed) {
    static double a[ORDER][ORDER], b[ORDER];
    uint64_t x = seed * 2862933555777941757u + 3037000493u;
    for (int i = 0; i < ORDER; i++) {
        b[i] = 0.0;
        for (int j = 0; j < ORDER; j++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            a[i][j] = (double)(x >> 40) / 16777216.0 - 0.5;
            b[i] += a[i][j]; /* so the solution is all ones */
        }
    }
    for (int k = 0; k < ORDER; k++) {
        int pivot = k;
        for (int i = k + 1; i < ORDER; i++)
            if (fabs(a[i][k]) > fabs(a[pivot][k])) pivot = i;
        for (int j = 0; j < ORDER && pivot != k; j++) {
            double t = a[k][j];
            a[k][j] = a[pivot][j];
            a[pivot][j] = t;
        }
        double t = b[k];
        b[k] = b[pivot];
        b[pivot] = t;
        for (int i = k + 1; i < ORDER; i++) {
            double factor = a[i][k] / a[k][k];
            for (int j = k + 1; j < ORDER; j++) a[i][j] -= factor * a[k][j];
            b[i] -= factor * b[k];
        }
    }
    uint64_t sum = 0;
    for (int i = ORDER - 1; i >= 0; i--) {
        for (int j = i + 1; j < ORDER; j++) b[i] -= a[i][j] * b[j];
        b[i] /= a[i][i];
        if (fabs(b[i] - 1.0) > 1e-6) wrong_result("the solution of a linear system is off");
        uint64_t bits;
        memcpy(&bits, &b[i], sizeof bits);
        sum = (sum << 7 | sum >> 57) ^ bits;
    }
    return sum;
}

static uint64_t float_mix(uint64_t work) {
    uint64_t sum = 1;
    for (uint64_t i = 0; i < work; i++) sum = sum * 31 + solve(i % 64);
    return sum;
}

int run_float(const struct options *o) { return run_checked(o, float_mix, 2, 0x0364aec2f24ee475u); }

/* Reading the clock: a vDSO call where the environment has a clock that user code may read, else a system
 * call; many programs do it all the time. */
static double clock_batch(uint64_t work, void *state) {
    struct timespec t;
    (void)state;
    double start = now();
    for (uint64_t i = 0; i < work; i++) clock_gettime(CLOCK_MONOTONIC, &t);
    return now() - start;
}

int run_clock(const struct options *o) {
    struct series s;
    measure(&s, o, clock_batch, NULL);
    report(o, "s", &s, median(&s));
    report_end();
    return 0;
}

/* A wait of known length: the reading can be checked without another tool. */
static double sleep_batch(uint64_t work, void *state) {
    uint64_t usec = *(uint64_t *)state;
    struct timespec wait = {(time_t)(usec / 1000000), (long)(usec % 1000000) * 1000};
    double start = now();
    for (uint64_t i = 0; i < work; i++) {
        struct timespec left = wait;
        while (nanosleep(&left, &left) != 0)
            if (errno != EINTR) die("nanosleep");
    }
    return now() - start;
}

int run_sleep(const struct options *o) {
    uint64_t usec = o->usec ? o->usec : 1000;
    struct series s;
    measure(&s, o, sleep_batch, &usec);
    report(o, "s", &s, median(&s));
    field("usec", (double)usec);
    report_end();
    return 0;
}
