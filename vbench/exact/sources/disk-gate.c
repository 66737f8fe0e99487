/* The gate of a machine that Bochs emulates: a disk. This is preloaded into the emulator.
 *
 * Of that disk, the first half is what the guest's first process (agent.c) writes its replies to, and from the second it
 * reads requests. The emulator is one thread, so while it waits for such a read to be done, the machine stands still, as
 * at gate.c's gate, whose orders these are but for s: there is no monitor that could save it. (What both have in common
 * is not in a file of its own, as the lines of gate.c are part of that program, which gives the testbed's states their
 * names.)
 *
 * VBENCH_GATE is the socket, VBENCH_DISK the disk's file, and VBENCH_SEED what the processor's random numbers begin with.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define ROOM (16 << 20)

struct order { uint32_t what, size; };

static char request[ROOM], reply[ROOM];
static int line = -1;

static void move(void *data, size_t size, int in)
{
    for (ssize_t n; size; data = (char *)data + n, size -= n)
        if ((n = in ? syscall(SYS_read, line, data, size) : syscall(SYS_write, line, data, size)) <= 0)
            _exit(0); /* nobody leads this machine any more */
}

static void say(uint32_t what, uint32_t size)
{
    struct order order = {what, size};
    move(&order, sizeof order, 0);
}

static void dial(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("VBENCH_GATE");
    if (!path || strlen(path) >= sizeof address.sun_path) _exit(5);
    strcpy(address.sun_path, path);
    line = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(line, (struct sockaddr *)&address, sizeof address)) {
        perror("vbench: nobody leads this machine");
        _exit(5);
    }
}

/* A second machine in the same state. */
static void double_up(void)
{
    signal(SIGCHLD, SIG_IGN); /* nobody waits for it */
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) {
        perror("vbench: no second machine");
        _exit(7);
    }
    if (!pid) {
        close(line);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(0);
        dial();
        say('r', getpid());
    }
}

/* The guest has come to its gate. */
static void pass(void)
{
    if (line < 0) dial();
    say('r', 0);
    for (struct order order;;) {
        move(&order, sizeof order, 1);
        if (order.size > ROOM) _exit(5);
        switch (order.what) {
        case 'w': move(request, order.size, 1); break;
        case 'q': move(reply, order.size, 0); break;
        case 'f': double_up(); break;
        case 'g': return;
        default: _exit(6);
        }
    }
}

/* Where reads and writes of the disk's file are; -1 if it is another. */
static off64_t place(int file)
{
    static struct stat ours;
    struct stat this;
    if (!ours.st_ino && stat(getenv("VBENCH_DISK"), &ours)) _exit(5);
    if (fstat(file, &this) || this.st_ino != ours.st_ino || this.st_dev != ours.st_dev) return -1;
    return lseek64(file, 0, SEEK_CUR);
}

ssize_t read(int file, void *to, size_t size)
{
    off64_t at = place(file);
    if (at < ROOM || at + size > 2 * ROOM) return syscall(SYS_read, file, to, size);
    if (at == ROOM) pass();
    memcpy(to, request + at - ROOM, size);
    lseek64(file, at + size, SEEK_SET); /* a second machine has moved on by the same file */
    return size;
}

ssize_t write(int file, const void *from, size_t size)
{
    off64_t at = place(file);
    if (at < 0) return syscall(SYS_write, file, from, size);
    if (at + size <= ROOM) memcpy(reply + at, from, size);
    lseek64(file, at + size, SEEK_SET);
    return size;
}

/* The emulator seeds what it takes RDRAND's numbers from by the time of day. */
void srand(unsigned seed)
{
    void (*real)(unsigned) = dlsym(RTLD_NEXT, "srand");
    const char *ours = getenv("VBENCH_SEED");
    real(ours ? atoi(ours) : seed);
}
