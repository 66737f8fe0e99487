/* The kernel's elementary services: where trapping and emulation show most. */
#define _GNU_SOURCE
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int simple(const struct options *o, batch_fn batch, void *state) {
    struct series s;
    measure(&s, o, batch, state);
    report(o, "s", &s, median(&s));
    report_end();
    return 0;
}

static double nullcall_batch(uint64_t work, void *state) {
    (void)state;
    double start = now();
    for (uint64_t i = 0; i < work; i++) syscall(SYS_getppid);
    return now() - start;
}

int run_nullcall(const struct options *o) { return simple(o, nullcall_batch, NULL); }

static double read_batch(uint64_t work, void *state) {
    int fd = *(int *)state;
    char byte;
    double start = now();
    for (uint64_t i = 0; i < work; i++)
        if (read(fd, &byte, 1) != 1) die("/dev/zero");
    return now() - start;
}

int run_read1(const struct options *o) {
    int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    if (fd < 0) die("/dev/zero");
    return simple(o, read_batch, &fd);
}

static double write_batch(uint64_t work, void *state) {
    int fd = *(int *)state;
    double start = now();
    for (uint64_t i = 0; i < work; i++)
        if (write(fd, "", 1) != 1) die("/dev/null");
    return now() - start;
}

int run_write1(const struct options *o) {
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (fd < 0) die("/dev/null");
    return simple(o, write_batch, &fd);
}

/* --- files -------------------------------------------------------------------------------------- */

static char scratch_name[64];

static void remove_scratch(void) { unlink(scratch_name); }

static void make_scratch(const struct options *o) {
    enter_directory(o);
    snprintf(scratch_name, sizeof scratch_name, "vbench-probe.%d", (int)getpid());
    int fd = open(scratch_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) die(scratch_name);
    close(fd);
    atexit(remove_scratch);
}

static double stat_batch(uint64_t work, void *state) {
    struct stat info;
    (void)state;
    double start = now();
    for (uint64_t i = 0; i < work; i++)
        if (stat(scratch_name, &info) != 0) die("stat");
    return now() - start;
}

int run_stat(const struct options *o) {
    make_scratch(o);
    return simple(o, stat_batch, NULL);
}

static double openclose_batch(uint64_t work, void *state) {
    (void)state;
    double start = now();
    for (uint64_t i = 0; i < work; i++) {
        int fd = open(scratch_name, O_RDONLY);
        if (fd < 0 || close(fd) != 0) die("open and close");
    }
    return now() - start;
}

int run_openclose(const struct options *o) {
    make_scratch(o);
    return simple(o, openclose_batch, NULL);
}

/* lmbench's lat_fs: create files of a size, then delete them; each step timed by itself. Nothing is synced:
 * this is the cost of the file system's code and caches, the disk has workloads of its own. */
static char folder[64];
static uint64_t files_made;

static void file_name(char *name, size_t size, uint64_t i) {
    snprintf(name, size, "%s/%llu", folder, (unsigned long long)i);
}

static void remove_folder(void) {
    char name[96];
    for (uint64_t i = 0; i < files_made; i++) {
        file_name(name, sizeof name, i);
        unlink(name);
    }
    rmdir(folder);
}

int run_create(const struct options *o) {
    enum { LOT = 1000 }; /* files that exist at once */
    struct series made, removed;
    char name[96], *data = calloc(1, o->kib * 1024 + 1);
    if (!data) die("calloc");
    memset(&made, 0, sizeof made), memset(&removed, 0, sizeof removed);
    enter_directory(o);
    snprintf(folder, sizeof folder, "vbench-probe.%d", (int)getpid());
    if (mkdir(folder, 0700) != 0) die(folder);
    atexit(remove_folder);
    for (uint64_t batch = 0; batch <= o->batches; batch++) {
        double create_s = timer_cost, delete_s = timer_cost;
        uint64_t work = batch ? o->work : o->work / 8 + 1; /* the first is the warm-up */
        for (uint64_t left = work; left > 0;) {
            uint64_t n = left < LOT ? left : LOT;
            double start = now();
            for (uint64_t i = 0; i < n; i++) {
                file_name(name, sizeof name, i);
                int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0600);
                if (fd < 0) die(name);
                files_made = i + 1;
                if (o->kib) write_full(fd, data, o->kib * 1024);
                if (close(fd) != 0) die(name);
            }
            double middle = now();
            for (uint64_t i = 0; i < n; i++) {
                file_name(name, sizeof name, i);
                if (unlink(name) != 0) die(name);
            }
            delete_s += now() - middle - timer_cost;
            create_s += middle - start - timer_cost;
            files_made = 0;
            left -= n;
        }
        if (batch) add_batch(&made, create_s, work), add_batch(&removed, delete_s, work);
    }
    made.seconds += removed.seconds;
    report(o, "s", &made, median(&made));
    field("delete", median(&removed));
    field("kib", (double)o->kib);
    report_end();
    return 0;
}

/* --- select ------------------------------------------------------------------------------------- */

struct select_state {
    int highest;
    fd_set set;
};

static double select_batch(uint64_t work, void *state) {
    struct select_state *s = state;
    double start = now();
    for (uint64_t i = 0; i < work; i++) {
        fd_set set = s->set;
        struct timeval none = {0, 0};
        if (select(s->highest + 1, &set, NULL, NULL, &none) != 0) die("select");
    }
    return now() - start;
}

/* The descriptors are duplicates of one idle TCP connection over loopback. */
int run_select(const struct options *o) {
    int pair[2], count = (int)(o->fds ? o->fds : 10);
    struct select_state s = {.highest = 0};
    open_tcp_pair(pair);
    FD_ZERO(&s.set);
    for (int i = 0; i < count; i++) {
        int fd = i ? dup(pair[0]) : pair[0];
        if (fd < 0 || fd >= FD_SETSIZE) die("dup");
        FD_SET(fd, &s.set);
        if (fd > s.highest) s.highest = fd;
    }
    return simple(o, select_batch, &s);
}

/* --- signals ------------------------------------------------------------------------------------ */

static volatile uint64_t delivered;

static void on_signal(int number) {
    (void)number;
    delivered++;
}

static double siginstall_batch(uint64_t work, void *state) {
    struct sigaction action = {.sa_handler = on_signal};
    (void)state;
    double start = now();
    for (uint64_t i = 0; i < work; i++)
        if (sigaction(SIGUSR1, &action, NULL) != 0) die("sigaction");
    return now() - start;
}

int run_siginstall(const struct options *o) { return simple(o, siginstall_batch, NULL); }

static double sigdeliver_batch(uint64_t work, void *state) {
    pid_t self = getpid();
    (void)state;
    delivered = 0;
    double start = now();
    for (uint64_t i = 0; i < work; i++)
        if (kill(self, SIGUSR1) != 0) die("kill");
    double seconds = now() - start;
    if (delivered != work) wrong_result("signals were lost");
    return seconds;
}

int run_sigdeliver(const struct options *o) {
    struct sigaction action = {.sa_handler = on_signal};
    if (sigaction(SIGUSR1, &action, NULL) != 0) die("sigaction");
    return simple(o, sigdeliver_batch, NULL);
}

/* --- processes ---------------------------------------------------------------------------------- */

/* What a child of fork becomes: nothing (argv NULL), or a program; quiet, with null as its input and output. */
struct child {
    char **argv;
    int quiet;
};

static double fork_batch(uint64_t work, void *state) {
    struct child *child = state;
    double start = now();
    for (uint64_t i = 0; i < work; i++) {
        pid_t pid = fork();
        if (pid < 0) die("fork");
        if (pid == 0) {
            if (!child->argv) _exit(0);
            if (child->quiet) {
                int null = open("/dev/null", O_RDWR);
                if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0) _exit(126);
            }
            execv(child->argv[0], child->argv);
            _exit(127);
        }
        reap(pid);
    }
    return now() - start;
}

int run_forkexit(const struct options *o) { return simple(o, fork_batch, &(struct child){NULL, 0}); }

/* By default the program executed is this one, which exits at once: no other file takes part. */
int run_forkexec(const struct options *o) {
    static char *again[] = {"/proc/self/exe", "true", NULL};
    char **argv = o->command ? o->command : again;
    if (access(argv[0], X_OK) != 0) die(argv[0]);
    return simple(o, fork_batch, &(struct child){argv, 0});
}

/* How long a whole program takes, start and end included: for tools that do a fixed amount of work and do not
 * time themselves. Standard error stays, so that a failure says why. */
int run_exec(const struct options *o) {
    if (!o->command) usage_error("exec needs -- ARGV");
    enter_directory(o);
    if (access(o->command[0], X_OK) != 0) die(o->command[0]);
    return simple(o, fork_batch, &(struct child){o->command, 1});
}

/* --- context switch ----------------------------------------------------------------------------- */

/* A token goes round a ring of processes, each of which reads it, sums its working set, and passes it on. As
 * lmbench's lat_ctx does, take off what one process alone pays for the same pipes and the same sums; what is
 * left is the switch, and the refilling of caches that it causes. One operation is one hop of the token. All
 * processes share one processor (unless --pin 0), or this would measure wake-ups across processors. */
struct ring {
    int procs, (*pipes)[2];
    uint64_t words;
    uint64_t *data;
};

static void pass(struct ring *r, int in, int out) {
    char token;
    uint64_t sum = 0;
    if (read_full(r->pipes[in][0], &token, 1) != 1) _exit(0); /* the ring was opened: the end */
    for (uint64_t i = 0; i < r->words; i++) sum += ((volatile uint64_t *)r->data)[i];
    (void)sum;
    write_full(r->pipes[out][1], &token, 1);
}

static double ring_round(struct ring *r, uint64_t rounds) {
    double start = now();
    for (uint64_t i = 0; i < rounds; i++) {
        write_full(r->pipes[1][1], "", 1);
        char token;
        uint64_t sum = 0;
        if (read_full(r->pipes[0][0], &token, 1) != 1) wrong_result("ctxsw: a process left the ring");
        for (uint64_t k = 0; k < r->words; k++) sum += ((volatile uint64_t *)r->data)[k];
        (void)sum;
    }
    return now() - start;
}

static double alone(struct ring *r, uint64_t rounds) {
    double start = now();
    for (uint64_t i = 0; i < rounds; i++)
        for (int p = 0; p < r->procs; p++) {
            write_full(r->pipes[p][1], "", 1);
            char token;
            uint64_t sum = 0;
            if (read_full(r->pipes[p][0], &token, 1) != 1) die("pipe");
            for (uint64_t k = 0; k < r->words; k++) sum += ((volatile uint64_t *)r->data)[k];
            (void)sum;
        }
    return now() - start;
}

static void fill(struct ring *r) {
    r->data = map_pages(r->words * 8 + 8, 0);
    for (uint64_t i = 0; i < r->words; i++) r->data[i] = i;
}

int run_ctxsw(const struct options *o) {
    struct ring r = {.procs = (int)(o->procs ? o->procs : 2), .words = o->kib * 1024 / 8};
    uint64_t rounds = (o->work + (uint64_t)r.procs - 1) / (uint64_t)r.procs, hops = rounds * (uint64_t)r.procs;
    struct series hop, overhead, net;
    int pids[256], ring[256][2], lone[256][2], pinned = pin_to_one_cpu(o);
    memset(&hop, 0, sizeof hop), memset(&overhead, 0, sizeof overhead), memset(&net, 0, sizeof net);
    for (int p = 0; p < r.procs; p++)
        if (pipe(ring[p]) != 0 || pipe(lone[p]) != 0) die("pipe");
    r.pipes = ring;
    for (int p = 1; p < r.procs; p++) {
        if ((pids[p] = fork()) < 0) die("fork");
        if (pids[p] > 0) continue;
        int next = (p + 1) % r.procs;
        for (int q = 0; q < r.procs; q++) {
            if (q != p) close(ring[q][0]);
            if (q != next) close(ring[q][1]);
            close(lone[q][0]), close(lone[q][1]);
        }
        fill(&r);
        for (;;) pass(&r, p, next);
    }
    for (int q = 0; q < r.procs; q++) {
        if (q != 0) close(ring[q][0]);
        if (q != 1) close(ring[q][1]);
    }
    fill(&r);
    ring_round(&r, rounds / 8 + 1); /* warm-up; also waits for every process to have come up */
    for (uint64_t batch = 0; batch < o->batches; batch++) {
        r.pipes = lone;
        add_batch(&overhead, alone(&r, rounds), hops);
        r.pipes = ring;
        add_batch(&hop, ring_round(&r, rounds), hops);
        net.per_op[net.count] = hop.per_op[net.count] - overhead.per_op[net.count];
        net.count++;
    }
    net.seconds = hop.seconds + overhead.seconds;
    close(ring[1][1]); /* each process in turn sees the end and leaves */
    for (int p = 1; p < r.procs; p++) reap(pids[p]);
    report(o, "s", &net, median(&net));
    field("hop", median(&hop));
    field("overhead", median(&overhead));
    field("procs", r.procs);
    field("kib", (double)o->kib);
    field("pinned", pinned);
    report_end();
    return 0;
}
