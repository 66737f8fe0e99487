/* The gate: a plugin of QEMU that lets an emulated processor stand still in the midst of an instruction.
 *
 * The guest executes a marked no-op when it is ready for the next request. Its processor then waits here, in no time of
 * its own: QEMU counts instructions, and none is executed. We exchange what lies in the box, memory of the guest's first
 * process (agent.c), and say go. Nothing that we do, and no time that we take, shows in the guest.
 *
 * The socket of the argument socket=PATH carries orders of 8 bytes, a letter and a size:
 *   r       from here: the guest has come to its gate
 *   w SIZE  write the bytes that follow to the box
 *   q SIZE  read as many bytes of the box; they are sent back
 *   g       go on
 *   s       QEMU's monitor has been told to stop: stop at this very instruction
 *   f       fork: a second machine in the same state, which makes a connection of its own and says r with its number.
 *           It has what this one has learnt, translated code above all, so it answers at once
 *
 * QEMU 7.2's plugin interface (docs/devel/tcg-plugins.rst) declares what begins with qemu_plugin_; the rest is what its
 * program exports. Debian packages no header of it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BOX 0x700000000000ULL
#define ROOM (16 << 20)
#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);

bool runstate_is_running(void);
void qemu_mutex_lock_iothread_impl(const char *, int);
void qemu_mutex_unlock_iothread(void);
void *qemu_get_cpu(int);
int cpu_memory_rw_debug(void *cpu, uint64_t address, void *buffer, size_t size, bool write);
int qemu_main_loop(void);
int qemu_ram_foreach_block(int (*)(void *block, void *), void *);
void *qemu_ram_get_host_addr(void *block);
size_t qemu_ram_get_max_length(void *block);

struct order { uint32_t what, size; };

EXPORT int qemu_plugin_version = 1;

/* nopl with a displacement that no compiler makes */
static const unsigned char MARK[] = {0x0f, 0x1f, 0x80, 0x01, 0x62, 0x6e, 0x76};
static char copy[ROOM];
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static int line = -1;

static void send_all(const void *data, size_t size)
{
    while (size) {
        ssize_t n = write(line, data, size);
        if (n <= 0) _exit(0); /* nobody leads this machine any more */
        data = (const char *)data + n;
        size -= n;
    }
}

static void receive_all(void *data, size_t size)
{
    while (size) {
        ssize_t n = read(line, data, size);
        if (n <= 0) _exit(0);
        data = (char *)data + n;
        size -= n;
    }
}

static bool dial(void)
{
    line = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return line >= 0 && !connect(line, (struct sockaddr *)&address, sizeof address);
}

/* Threads of QEMU wake each other through these; copies of them would wake the other machine's. */
static bool renew_events(void)
{
    DIR *all = opendir("/proc/self/fd");
    for (struct dirent *each; all && (each = readdir(all));) {
        char target[32] = "", path[64];
        unsigned count = 0;
        if (readlinkat(dirfd(all), each->d_name, target, sizeof target - 1) < 0) continue;
        if (strcmp(target, "anon_inode:[eventfd]")) continue;
        snprintf(path, sizeof path, "/proc/self/fdinfo/%.16s", each->d_name);
        FILE *info = fopen(path, "r");
        for (char text[80]; info && fgets(text, sizeof text, info);) sscanf(text, "eventfd-count: %x", &count);
        int fresh = eventfd(count, EFD_CLOEXEC | EFD_NONBLOCK);
        if (!info || fclose(info) || dup3(fresh, atoi(each->d_name), O_CLOEXEC) < 0) return false;
        close(fresh);
    }
    return all && !closedir(all);
}

/* QEMU keeps its guest's memory from its children. */
static int share(void *block, void *unused)
{
    return madvise(qemu_ram_get_host_addr(block), qemu_ram_get_max_length(block), MADV_DOFORK);
}

static void *lead(void *unused)
{
    qemu_mutex_lock_iothread_impl(__FILE__, __LINE__);
    _exit(qemu_main_loop());
}

/* Only this thread, the processor's, goes on in the child. QEMU's lock is ours meanwhile: the main thread, whose loop a
 * new one takes over, is waiting for events then and in the midst of nothing. The others there are have no more to do:
 * one serves the monitor, one frees memory that is no longer in use. */
static void double_up(void)
{
    pthread_t thread;
    signal(SIGCHLD, SIG_IGN); /* nobody waits for it */
    qemu_mutex_lock_iothread_impl(__FILE__, __LINE__);
    pid_t parent = getpid(), pid = qemu_ram_foreach_block(share, NULL) ? -1 : fork();
    if (pid < 0) {
        perror("vbench: no second machine");
        _exit(7);
    }
    if (!pid) {
        close(line);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(0);
        if (!renew_events() || !dial() || pthread_create(&thread, NULL, lead, NULL)) {
            perror("vbench: no second machine");
            kill(parent, SIGKILL);
        }
    }
    qemu_mutex_unlock_iothread();
    if (!pid) {
        struct order order = {'r', getpid()};
        send_all(&order, sizeof order);
    }
}

static void box(size_t size, bool write)
{
    qemu_mutex_lock_iothread_impl(__FILE__, __LINE__);
    int bad = cpu_memory_rw_debug(qemu_get_cpu(0), BOX, copy, size, write);
    qemu_mutex_unlock_iothread();
    if (bad) _exit(4);
}

static void pass(unsigned cpu, void *data)
{
    struct order order = {'r', 0};
    send_all(&order, sizeof order);
    for (;;) {
        receive_all(&order, sizeof order);
        if (order.size > ROOM) _exit(5);
        switch (order.what) {
        case 'w':
            receive_all(copy, order.size);
            box(order.size, true);
            break;
        case 'q':
            box(order.size, false);
            send_all(copy, order.size);
            break;
        case 's':
            /* The monitor's thread first stops the clocks, then asks this processor to stop, and lets go of the lock
               only when it waits for that: the next instruction is not executed. */
            while (runstate_is_running()) usleep(500);
            qemu_mutex_lock_iothread_impl(__FILE__, __LINE__);
            qemu_mutex_unlock_iothread();
            return;
        case 'f':
            double_up();
            break;
        case 'g':
            return;
        default:
            _exit(6);
        }
    }
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    for (size_t i = 0, n = qemu_plugin_tb_n_insns(tb); i < n; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        if (qemu_plugin_insn_size(insn) == sizeof MARK && !memcmp(qemu_plugin_insn_data(insn), MARK, sizeof MARK))
            qemu_plugin_register_vcpu_insn_exec_cb(insn, pass, 0, NULL);
    }
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    static const char key[] = "socket=";
    if (argc != 1 || strncmp(argv[0], key, sizeof key - 1) || strlen(argv[0]) >= sizeof address.sun_path) return 1;
    strcpy(address.sun_path, argv[0] + sizeof key - 1);
    if (!dial()) return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    return 0;
}
