/* vbench-probe: how long the elementary operations of a machine take.
 *
 *     vbench-probe SUBCOMMAND --work N [--batches B] [options]
 *
 * Each subcommand runs one short warm-up and B batches of N operations, and prints one JSON object:
 * name, unit, work (N), batches (seconds per operation, batch by batch), seconds (in measured batches),
 * value (the median batch, in the unit), elapsed (from start to end of the process, by its own clock:
 * for checking that clock from outside), then what the subcommand adds. The caller chooses N, so nothing
 * here depends on how fast the machine is: there is no loop that runs for a time, and none that polls.
 * The cost of reading the clock is measured first and subtracted.
 *
 * Exit code 1: the environment refused something; 2: bad arguments; 3: a computation went wrong.
 *
 * Definitions follow lmbench (L. McVoy, C. Staelin, "lmbench: Portable Tools for Performance Analysis",
 * USENIX 1996) and STREAM (J. McCalpin, "Memory Bandwidth and Machine Balance in Current High Performance
 * Computers", IEEE TCCA Newsletter, 1995); where an operation differs from theirs, its comment says how.
 * The code is our own. Static, so that no loader and no library of the machine takes part.
 */
#define _GNU_SOURCE
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

double timer_cost;
static double started;

static const struct command {
    const char *name;
    int (*run)(const struct options *);
    const char *options; /* each between spaces */
    const char *help;
} commands[] = {
    {"int", run_int, " work batches ", "integer mix: xorshift, multiply, an unpredictable branch"},
    {"float", run_float, " work batches ", "double precision: LU solution of a dense 48 x 48 system"},
    {"clock", run_clock, " work batches ", "clock_gettime(CLOCK_MONOTONIC)"},
    {"sleep", run_sleep, " work batches usec ", "a wait of known length: checks the probe itself"},
    {"membw", run_membw, " work batches mib ", "STREAM copy, scale, add, triad; arrays of --mib each"},
    {"memlat", run_memlat, " work batches kib stride ", "dependent loads over --kib at --stride bytes"},
    {"alloc", run_alloc, " work batches ", "free and malloc of 16 to 4096 bytes, in random order"},
    {"mmap", run_mmap, " work batches kib ", "mmap, touch one page, munmap of --kib"},
    {"pagefault", run_pagefault, " work batches ", "first touch of an anonymous page"},
    {"protfault", run_protfault, " work batches ", "store to a read-only page, up to the handler's return"},
    {"nullcall", run_nullcall, " work batches ", "getppid system call"},
    {"read1", run_read1, " work batches ", "read one byte of /dev/zero"},
    {"write1", run_write1, " work batches ", "write one byte to /dev/null"},
    {"stat", run_stat, " work batches dir ", "stat of a file in --dir"},
    {"openclose", run_openclose, " work batches dir ", "open and close of a file in --dir"},
    {"select", run_select, " work batches fds ", "select on --fds TCP descriptors, none ready"},
    {"siginstall", run_siginstall, " work batches ", "sigaction"},
    {"sigdeliver", run_sigdeliver, " work batches ", "kill of oneself, up to the handler's return"},
    {"create", run_create, " work batches dir kib ", "create and delete files of --kib in --dir"},
    {"forkexit", run_forkexit, " work batches ", "fork, exit, wait"},
    {"forkexec", run_forkexec, " work batches -- ", "fork, exec of this program or of -- ARGV, exit, wait"},
    {"exec", run_exec, " work batches dir -- ", "run -- ARGV in --dir to its end; what it prints is dropped"},
    {"ctxsw", run_ctxsw, " work batches procs kib pin ", "context switch in a ring of pipes"},
    {"pipelat", run_pipelat, " work batches pin ", "1-byte round trip to another process, pipes"},
    {"unixlat", run_unixlat, " work batches pin ", "1-byte round trip to another process, Unix socket"},
    {"tcplat", run_tcplat, " work batches pin ", "1-byte round trip to another process, TCP over loopback"},
    {"pipebw", run_pipebw, " work batches ", "MiB/s from another process, pipe; one operation is 1 MiB"},
    {"unixbw", run_unixbw, " work batches ", "MiB/s from another process, Unix socket"},
    {"tcpbw", run_tcpbw, " work batches ", "MiB/s from another process, TCP over loopback"},
    {"tcprr", run_tcprr, " work batches connect ", "1-byte request and response with --connect ADDR PORT"},
    {"tcpsmall", run_tcpsmall, " work batches connect window ", "1-byte messages, --window of them on their way"},
    {"tcpbulk", run_tcpbulk, " work batches connect direction ", "MiB/s --direction up|down, --connect ADDR PORT"},
    {"tcpserver", run_tcpserver, " listen port ", "serve them on --listen ADDR --port P (0: any)"},
    {"source", run_source, " dir ", "write the source of this program into --dir: a fixed tree to compile"},
};
#define COMMANDS (sizeof commands / sizeof commands[0])

/* --- errors ------------------------------------------------------------------------------------- */

void die(const char *what) {
    fprintf(stderr, "vbench-probe: %s: %s\n", what, strerror(errno));
    exit(1);
}

void wrong_result(const char *what) {
    fprintf(stderr, "vbench-probe: wrong result: %s\n", what);
    exit(3);
}

void usage_error(const char *format, ...) {
    va_list list;
    fputs("vbench-probe: ", stderr);
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    exit(2);
}

/* --- time and report ---------------------------------------------------------------------------- */

double now(void) {
    struct timespec t;
    if (clock_gettime(CLOCK_MONOTONIC, &t) != 0) die("clock_gettime");
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void measure_timer(void) {
    enum { READINGS = 200 };
    timer_cost = 1.0;
    for (int round = 0; round < 3; round++) {
        double start = now(), end = start;
        for (int i = 0; i < READINGS; i++) end = now();
        double cost = (end - start) / READINGS;
        if (cost < timer_cost) timer_cost = cost;
    }
}

void add_batch(struct series *series, double seconds, uint64_t work) {
    double net = seconds - timer_cost;
    /* A clock that did not move gives 0 here; the reader refuses it, and calibration asks for more. */
    series->per_op[series->count++] = net > 0 ? net / (double)work : 0.0;
    series->seconds += seconds;
}

void measure(struct series *series, const struct options *o, batch_fn batch, void *state) {
    memset(series, 0, sizeof *series);
    batch(o->work / 8 + 1, state); /* warm-up: caches, page tables, branch history, lazy set-up */
    for (uint64_t i = 0; i < o->batches; i++) add_batch(series, batch(o->work, state), o->work);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median(const struct series *series) {
    double sorted[MAX_BATCHES];
    size_t n = series->count;
    memcpy(sorted, series->per_op, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_size);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

double rate(double amount, const struct series *series) {
    double seconds = median(series);
    return seconds > 0 ? amount / seconds : 0.0;
}

void report(const struct options *o, const char *unit, const struct series *series, double value) {
    printf("{\"name\": \"%s\", \"unit\": \"%s\", \"work\": %llu, \"batches\": [", o->name, unit,
           (unsigned long long)o->work);
    for (size_t i = 0; i < series->count; i++) printf("%s%.9g", i ? ", " : "", series->per_op[i]);
    printf("], \"seconds\": %.9f, \"value\": %.9g", series->seconds, value);
    field("timer", timer_cost);
}

void field(const char *name, double value) { printf(", \"%s\": %.9g", name, value); }

void field_text(const char *name, const char *value) { printf(", \"%s\": \"%s\"", name, value); }

void report_end(void) { printf(", \"elapsed\": %.9f}\n", now() - started); }

/* --- small helpers ------------------------------------------------------------------------------ */

void *map_pages(size_t bytes, int huge) {
    void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) die("mmap");
    if (!huge) madvise(pages, bytes, MADV_NOHUGEPAGE); /* a kernel without huge pages refuses: as good */
    return pages;
}

size_t read_full(int fd, void *buffer, size_t size) {
    size_t done = 0;
    while (done < size) {
        ssize_t n = read(fd, (char *)buffer + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) die("read");
        if (n == 0) break;
        done += (size_t)n;
    }
    return done;
}

void write_full(int fd, const void *buffer, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, (const char *)buffer + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) die("write");
        done += (size_t)n;
    }
}

void enter_directory(const struct options *o) {
    /* Names are then relative: the depth of the scratch directory, unlike across machines, costs nothing. */
    if (chdir(o->dir) != 0) die(o->dir);
}

int pin_to_one_cpu(const struct options *o) {
    cpu_set_t set;
    int cpu = sched_getcpu();
    if (!o->pin || cpu < 0) return 0;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return sched_setaffinity(0, sizeof set, &set) == 0;
}

void reap(int pid) {
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) die("waitpid");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(stderr, "vbench-probe: a child process failed (wait status %d)\n", status);
        exit(1);
    }
}

/* --- command line ------------------------------------------------------------------------------- */

static const struct number {
    const char *name;
    size_t where;
    uint64_t least, most;
} numbers[] = {
    {"work", offsetof(struct options, work), 1, 1000000000000000},
    {"batches", offsetof(struct options, batches), 1, MAX_BATCHES},
    {"kib", offsetof(struct options, kib), 0, 16777216},
    {"mib", offsetof(struct options, mib), 1, 16384},
    {"stride", offsetof(struct options, stride), 8, 1048576},
    {"procs", offsetof(struct options, procs), 2, 256},
    {"fds", offsetof(struct options, fds), 1, 1000},
    {"window", offsetof(struct options, window), 1, 1024},
    {"usec", offsetof(struct options, usec), 1, 1000000},
    {"port", offsetof(struct options, port), 0, 65535},
    {"pin", offsetof(struct options, pin), 0, 1},
};

static const struct text {
    const char *name;
    size_t where;
} texts[] = {
    {"dir", offsetof(struct options, dir)},
    {"listen", offsetof(struct options, listen)},
    {"connect", offsetof(struct options, connect)},
    {"direction", offsetof(struct options, direction)},
};

static uint64_t whole_number(const char *option, const char *text, uint64_t least, uint64_t most) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || value < least || value > most)
        usage_error("--%s takes a whole number from %llu to %llu, not '%s'", option, (unsigned long long)least,
                    (unsigned long long)most, text);
    return value;
}

static void set_option(struct options *o, const char *name, const char *value) {
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (strcmp(name, numbers[i].name) == 0)
            *(uint64_t *)((char *)o + numbers[i].where) =
                whole_number(name, value, numbers[i].least, numbers[i].most);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (strcmp(name, texts[i].name) == 0) *(const char **)((char *)o + texts[i].where) = value;
}

static int takes(const struct command *command, const char *option) {
    char padded[32];
    snprintf(padded, sizeof padded, " %s ", option);
    return strstr(command->options, padded) != NULL;
}

static void parse(struct options *o, const struct command *command, char **arg) {
    for (; *arg; arg++) {
        if (strcmp(*arg, "--") == 0 && takes(command, "--") && arg[1]) {
            o->command = arg + 1;
            break;
        }
        const char *name = *arg + 2;
        if (strncmp(*arg, "--", 2) != 0 || !*name || strchr(name, ' ') || !takes(command, name))
            usage_error("%s does not take '%s'; it takes:%s", command->name, *arg, command->options);
        if (!arg[1]) usage_error("--%s needs a value", name);
        set_option(o, name, *++arg);
        if (strcmp(name, "connect") == 0) {
            if (!arg[1]) usage_error("--connect needs an address and a port");
            o->port = whole_number("connect ADDR", *++arg, 1, 65535);
        }
    }
    if (takes(command, "work") && !o->work) usage_error("%s needs --work N, the operations in a batch", o->name);
    if (takes(command, "dir") && !o->dir) usage_error("%s needs --dir DIRECTORY", o->name);
    if (takes(command, "connect") && !o->connect) usage_error("%s needs --connect ADDR PORT", o->name);
    if (takes(command, "listen") && !o->listen) usage_error("%s needs --listen ADDR", o->name);
}

static _Noreturn void help(void) {
    puts("usage: vbench-probe SUBCOMMAND --work N [--batches B] [options]\n");
    for (size_t i = 0; i < COMMANDS; i++)
        printf("  %-10s %s\n             options:%s\n", commands[i].name, commands[i].help, commands[i].options);
    exit(0);
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "true") == 0) _exit(0); /* what forkexec runs: nothing before this */
    if (argc == 2 && strcmp(argv[1], "--help") == 0) help();
    if (argc < 2) usage_error("no subcommand; see --help");

    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name) != 0) continue;
        struct options o = {.name = argv[1], .batches = 5, .pin = 1};
        parse(&o, &commands[i], argv + 2);
        signal(SIGPIPE, SIG_IGN); /* a peer that has gone is an error with a message */
        started = now();
        measure_timer();
        int code = commands[i].run(&o);
        if (fflush(stdout) != 0) die("standard output");
        return code;
    }
    usage_error("no subcommand '%s'; see --help", argv[1]);
}
