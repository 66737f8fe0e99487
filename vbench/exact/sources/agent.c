/* The first process of the machine: it carries out one request after the other, and between two of them the machine
 * stands still (gate.c).
 *
 * Requests and replies lie in the box, memory at an address that both know. It is written to only while this process is
 * at its gate. Times are nanoseconds of the machine's own monotonic clock. What commands write goes to memory files, so
 * that nobody has to be awake to take it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BOX ((char *)0x700000000000UL)
#define ROOM (16 << 20)
#define TAIL (64 << 10)
#define CHILDREN 256
#define SECOND 1000000000LL

struct request { uint32_t what, child; int64_t ns; uint32_t argc, argv_size, input_size, mode; char data[]; };
struct reply { int32_t status; uint32_t out, err, number; int64_t begin, end; char data[]; };

static struct { pid_t pid; int status, ended, output; } children[CHILDREN];
static sigset_t child_ended;

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

#ifdef DISK
/* The emulator has no gate of its own, so a disk is one (disk-gate.c): a reply goes to its first half, and until a read of
 * the second is done, which gives a request, the machine stands still.
 */
#define SECTORS(size) (((size) + 4095) & ~4095UL)

static void gate(void)
{
    static int disk = -1;
    char *box = BOX;
    struct reply *z = (struct reply *)box;
    struct request *q = (struct request *)box;
    if (disk >= 0)
        pwrite(disk, box, SECTORS(sizeof *z + z->out + z->err), 0);
    else
        disk = open("/dev/box", O_RDWR | O_DIRECT);
    ssize_t got = pread(disk, box, 4096, ROOM);
    size_t size = SECTORS(sizeof *q + q->argv_size + q->input_size);
    if (got == 4096 && size > 4096) got += pread(disk, box + 4096, size - 4096, ROOM + 4096);
    if (got < (ssize_t)size) {
        perror("vbench: no gate");
        exit(1);
    }
}
#else
/* The marked no-op ends its block of translated code, so that a machine stopped at it stops right behind it. */
static void gate(void) { __asm__ volatile(".byte 0x0f,0x1f,0x80,0x01,0x62,0x6e,0x76\n jmp 1f\n1:" ::: "memory"); }
#endif

static void ended(pid_t pid, int status)
{
    for (int i = 0; i < CHILDREN; i++)
        if (children[i].pid == pid && !children[i].ended) {
            children[i].ended = 1;
            children[i].status = status;
        }
}

/* Reap, as process 1 must, whoever has ended; 1 if `wanted` has. */
static int reap(pid_t wanted, int *status)
{
    int s, found = 0;
    pid_t pid;
    while ((pid = waitpid(-1, &s, WNOHANG)) > 0) {
        if (pid == wanted) { *status = s; found = 1; }
        else ended(pid, s);
    }
    return found;
}

static void sleep_until(int64_t end)
{
    int64_t left = end - now();
    struct timespec t = {left / SECOND, left % SECOND};
    if (left > 0) sigtimedwait(&child_ended, NULL, &t);
}

static pid_t start(char **argv, int in, int out, int err)
{
    pid_t pid = fork();
    if (pid) return pid;
    setsid();
    dup2(in, 0);
    dup2(out, 1);
    dup2(err, 2);
    close_range(3, ~0U, 0);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvp(argv[0], argv);
    dprintf(2, "%s: %s\n", argv[0], strerror(errno));
    _exit(errno == ENOENT ? 127 : 126);
}

static int file(const char *data, size_t size)
{
    int fd = memfd_create("vbench", 0);
    while (size) {
        ssize_t n = write(fd, data, size);
        if (n <= 0) break;
        data += n;
        size -= n;
    }
    lseek(fd, 0, SEEK_SET);
    return fd;
}

/* The last bytes of a file, as many as there is room for; `all` says how many it has. */
static size_t take(int fd, char *to, size_t room, off_t *all)
{
    off_t size = lseek(fd, 0, SEEK_END);
    size_t n = (size_t)size > room ? room : (size_t)size, got = 0;
    while (got < n) {
        ssize_t k = pread(fd, to + got, n - got, size - n + got);
        if (k <= 0) break;
        got += k;
    }
    if (all) *all = size;
    return got;
}

static void run(struct request *q, char **argv, struct reply *z, char *to, size_t room)
{
    int in = q->input_size ? file(q->data + q->argv_size, q->input_size) : open("/dev/null", O_RDONLY);
    int out = file(NULL, 0), err = file(NULL, 0), status = 0, late = 0;
    off_t outs, errs;
    pid_t pid = start(argv, in, out, err);
    while (!reap(pid, &status)) {
        if (q->ns && now() - z->begin >= q->ns) { late = 1; break; }
        sleep_until(q->ns ? z->begin + q->ns : now() + 3600 * SECOND);
    }
    z->end = now();
    kill(-pid, SIGKILL);
    if (late)
        while (!reap(pid, &status)) sleep_until(now() + SECOND);
    z->out = take(out, to, room, &outs);
    z->err = take(err, to + z->out, room - z->out, &errs);
    z->status = late ? -1 : status;
    z->number = z->out < outs || z->err < errs;
    close(in);
    close(out);
    close(err);
}

static int ready(int fd, short what, int64_t end)
{
    struct pollfd one = {fd, what, 0};
    for (int64_t left; (left = end ? end - now() : SECOND) > 0;) {
        struct timespec t = {left / SECOND, left % SECOND};
        if (ppoll(&one, 1, &t, NULL) > 0) return 1;
    }
    return 0;
}

/* Send an order into a FIFO, and take what comes out of another: a line with an exit code and two sizes, and as much as
 * these say. Who holds both ends of a FIFO open never waits for somebody to open the other. */
static void exchange(struct request *q, char **argv, struct reply *z, char *to, size_t room)
{
    int in = open(argv[0], O_RDWR | O_NONBLOCK), out = open(argv[1], O_RDWR | O_NONBLOCK);
    int64_t end = q->ns ? z->begin + q->ns : 0;
    const char *data = q->data + q->argv_size, *line;
    size_t left = q->input_size, got = 0, all = SIZE_MAX, sizes[2];
    char rest[4096], head[64] = "";
    ssize_t n;
    while (left && ready(in, POLLOUT, end) && (n = write(in, data, left)) > 0) data += n, left -= n;
    while (!left && got < all && ready(out, POLLIN, end)) {
        n = got < room ? read(out, to + got, room - got) : read(out, rest, sizeof rest);
        if (n <= 0) break;
        got += n;
        if (all == SIZE_MAX && (line = memchr(to, '\n', got))) {
            memcpy(head, to, (size_t)(line - to) < sizeof head ? (size_t)(line - to) : sizeof head - 1);
            if (sscanf(head, "%*d %zu %zu", &sizes[0], &sizes[1]) != 2) break;
            all = line + 1 - to + sizes[0] + sizes[1];
        }
    }
    z->status = got < all ? -1 : 0;
    z->number = got > room;
    z->out = got < room ? got : room;
    close(in);
    close(out);
}

static void spawn(char **argv, struct reply *z)
{
    int i = 0, null = open("/dev/null", O_RDONLY);
    while (i < CHILDREN && children[i].pid) i++;
    z->status = -1;
    if (i < CHILDREN) {
        int output = memfd_create("vbench", 0);
        fcntl(output, F_SETFL, O_APPEND);
        children[i].output = output;
        children[i].ended = 0;
        children[i].pid = start(argv, null, output, output);
        z->status = i;
        z->number = children[i].pid;
    }
    close(null);
}

int main(void)
{
    char *box = mmap(BOX, ROOM, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_POPULATE | MAP_LOCKED, -1, 0);
    if (box == MAP_FAILED) { perror("vbench: no memory"); return 1; }
    sigemptyset(&child_ended);
    sigaddset(&child_ended, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child_ended, NULL);
    for (;;) {
        gate();
        struct request *shared = (struct request *)box;
        size_t size = sizeof *shared + shared->argv_size + shared->input_size;
        struct request *q = malloc(size);
        memcpy(q, shared, size);
        char **argv = calloc(q->argc + 1, sizeof *argv), *part = q->data, *to = box + sizeof(struct reply);
        for (uint32_t i = 0; i < q->argc; i++, part += strlen(part) + 1) argv[i] = part;
        struct reply z = {.begin = now()};
        reap(-1, NULL);
        uint32_t i = q->child < CHILDREN ? q->child : 0;
        switch (q->what) {
        case 'R': run(q, argv, &z, to, ROOM - sizeof z); break;
        case 'X': exchange(q, argv, &z, to, ROOM - sizeof z); break;
        case 'S': spawn(argv, &z); break;
        case 'P': /* how a child is, and the end of what it has written; with a time: wait for its end so long */
            while (!children[i].ended && now() - z.begin < q->ns) {
                sleep_until(z.begin + q->ns);
                reap(-1, NULL);
            }
            z.status = children[i].status;
            z.number = children[i].ended;
            z.out = take(children[i].output, to, TAIL, NULL);
            break;
        case 'F': /* forget a child */
            close(children[i].output);
            children[i].pid = 0;
            break;
        case 'K': /* signal a process group, or the process that is to lead it */
            if (kill(-(pid_t)q->child, q->mode)) kill(q->child, q->mode);
            break;
        case 'Z':
            for (int64_t end = z.begin + q->ns; now() < end;) sleep_until(end);
            break;
        }
        if (!z.end) z.end = now();
        memcpy(box, &z, sizeof z);
        free(q);
        free(argv);
    }
}
