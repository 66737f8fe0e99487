/* Why: a plugin of QEMU that counts what an emulated processor executes, and where.
 *
 * The counts lie in a file that is mapped, so whoever stops the machine at its gate can read them there, also those of a
 * fork. No count moves a figure: none is an instruction of the machine's own. Arguments:
 *   counts=PATH      of 8 KiB, for the counts, in the order below
 *   fault=ADDRESS    where the kernel is entered by a page fault, in hexadecimal; also exception= and interrupt=
 *   memory=on        model caches of translations and of data as well, for a third of the speed
 *
 * Code is told apart by its address: Linux's kernel lies in the upper half, Xen below it, and the kernel of User Mode
 * Linux, which is a process, where it is linked to (arch/um/Makefile). A guest's is what runs between VMRUN and the first
 * instruction after it, which only its host executes; one that a guest runs itself is not told from that guest. The
 * reason of an exit is read where the processor has put it (AMD64 Architecture Programmer's Manual, volume 2, appendix B).
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define SIZE 8192

typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_info_t qemu_info_t;
typedef uint32_t qemu_plugin_meminfo_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_hwaddr;
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int, void *, uint64_t);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, void (*)(unsigned, qemu_plugin_meminfo_t, uint64_t, void *),
                                      int, int, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
struct qemu_plugin_hwaddr *qemu_plugin_get_hwaddr(qemu_plugin_meminfo_t, uint64_t);
bool qemu_plugin_hwaddr_is_io(const struct qemu_plugin_hwaddr *);
uint64_t qemu_plugin_hwaddr_phys_addr(const struct qemu_plugin_hwaddr *);

/* Of QEMU's own and of GLib, which it brings along. */
struct bytes { uint8_t *data; unsigned size; };
struct bytes *g_byte_array_new(void);
struct bytes *g_byte_array_set_size(struct bytes *, unsigned);
void *qemu_get_cpu(int);
int x86_cpu_gdb_read_register(void *cpu, struct bytes *, int number);
void cpu_physical_memory_rw(uint64_t address, void *buffer, uint64_t size, bool write);

EXPORT int qemu_plugin_version = 1;

/* In the order of vbench/exact/counts.py. */
enum {
    USER, UML, KERNEL, XEN, GUEST_USER, GUEST_KERNEL, GUEST_UPPER, REPEATED,
    SYSCALL, HYPERCALL, FAULT, EXCEPTION, INTERRUPT, CR3, FLUSH, CPUID, TSC, MSR, PORT, HALT, NESTED, EXITS,
    ACCESSES, MMIO, TLB1, TLB2, CACHE1, CACHE2,
    REASONS
};
#define OTHER 0x100 /* nested page faults come after the reasons below, all else after these */
static uint64_t *count;
static bool in_guest, model;
static uint64_t user_before, kernel_before, upper_before;
static uint64_t returns[64];
static int known;
static struct { uint64_t address; int what; } entries[256];
static int entered;

static void vmrun(unsigned cpu, void *data)
{
    if (in_guest) {
        count[NESTED]++;
        return;
    }
    in_guest = true;
    user_before = count[USER];
    kernel_before = count[KERNEL];
    upper_before = count[XEN];
}

/* Here, where a block begins, the registers are in memory. RAX is the physical address of the guest's control block. */
static void exited(unsigned cpu, void *data)
{
    static struct bytes *rax;
    uint64_t block = 0, reason = 0;
    if (!in_guest) return;
    in_guest = false;
    count[GUEST_USER] += count[USER] - user_before;
    count[GUEST_KERNEL] += count[KERNEL] - kernel_before;
    count[GUEST_UPPER] += count[XEN] - upper_before; /* such as gVisor's, in its own guest */
    count[EXITS]++;
    if (!rax) rax = g_byte_array_new();
    g_byte_array_set_size(rax, 0);
    if (x86_cpu_gdb_read_register(qemu_get_cpu((int)cpu), rax, 0) == sizeof block) {
        memcpy(&block, rax->data, sizeof block);
        cpu_physical_memory_rw(block + 0x70, &reason, sizeof reason, false);
    }
    count[REASONS + (reason < OTHER ? reason : reason == 0x400 ? OTHER : OTHER + 1)]++;
}

/* Sets of lines, each in the order of its last use. */
static uint64_t tlb1[16][4], tlb2[256][8], cache1[64][8], cache2[1024][8];

static bool hit(uint64_t *set, int lines, uint64_t key)
{
    int i = 0;
    while (i < lines - 1 && set[i] != key) i++;
    bool found = set[i] == key;
    memmove(set + 1, set, (size_t)i * sizeof *set);
    set[0] = key;
    return found;
}

static void touch(unsigned cpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
    count[ACCESSES]++;
    uint64_t page = (address >> 12) | (uint64_t)in_guest << 60;
    if (!hit(tlb1[page & 15], 4, page)) {
        count[TLB1]++;
        if (!hit(tlb2[page & 255], 8, page)) count[TLB2]++;
    }
    struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, address);
    if (!where) return;
    if (qemu_plugin_hwaddr_is_io(where)) {
        count[MMIO]++;
        return;
    }
    uint64_t line = qemu_plugin_hwaddr_phys_addr(where) >> 6;
    if (!hit(cache1[line & 63], 8, line)) {
        count[CACHE1]++;
        if (!hit(cache2[line & 1023], 8, line)) count[CACHE2]++;
    }
}

static int place(uint64_t address)
{
    if (address >= 0xffff880000000000ULL) return KERNEL;
    if (address >= 0xffff800000000000ULL) return XEN;
    return address >= 0x60000000 && address < 0x70000000 ? UML : USER;
}

/* What an instruction is, or -1; -2 for VMRUN. */
static int kind(const unsigned char *code, size_t size, int where)
{
    while (size && ((code[0] & 0xf0) == 0x40 || code[0] == 0x66 || code[0] == 0xf2 || code[0] == 0xf3)) code++, size--;
    if (!size) return -1;
    if (code[0] == 0x0f && size > 1) switch (code[1]) {
        case 0x01:
            if (size < 3) return -1;
            if (code[2] == 0xd8) return -2;
            if (code[2] == 0xd9 || code[2] == 0xc1) return HYPERCALL;
            if (code[2] == 0xf9) return TSC;
            return code[2] == 0xdf || ((code[2] & 0x38) == 0x38 && code[2] < 0xc0) ? FLUSH : -1;
        case 0x05: return where == KERNEL ? HYPERCALL : SYSCALL;
        case 0x22: return size > 2 && (code[2] & 0x38) == 0x18 ? CR3 : -1;
        case 0x30: case 0x32: return MSR;
        case 0x31: return TSC;
        case 0x38: return size > 2 && code[2] == 0x82 ? FLUSH : -1;
        case 0xa2: return CPUID;
        default: return -1;
    }
    switch (code[0]) {
        case 0xe4: case 0xe5: case 0xe6: case 0xe7: case 0xec: case 0xed: case 0xee: case 0xef: return PORT;
        case 0xf4: return HALT;
        default: return -1;
    }
}

/* Of an instruction on strings that repeats, each time is an instruction to QEMU. */
static bool repeats(const unsigned char *code, size_t size)
{
    if (!size || (code[0] != 0xf2 && code[0] != 0xf3)) return false;
    for (code++, size--; size && ((code[0] & 0xf0) == 0x40 || code[0] == 0x66 || code[0] == 0x67); code++) size--;
    return size == 1 && ((code[0] >= 0x6c && code[0] <= 0x6f) || (code[0] >= 0xa4 && code[0] <= 0xaf && code[0] != 0xa8 && code[0] != 0xa9));
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    uint64_t address = qemu_plugin_tb_vaddr(tb);
    int where = place(address);
    for (int i = 0; i < known; i++)
        if (returns[i] == address) qemu_plugin_register_vcpu_tb_exec_cb(tb, exited, 0, NULL);
    for (int i = 0; i < entered; i++)
        if (entries[i].address == address) qemu_plugin_register_vcpu_tb_exec_inline(tb, 0, &count[entries[i].what], 1);
    for (size_t i = 0, n = qemu_plugin_tb_n_insns(tb); i < n; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        const unsigned char *code = qemu_plugin_insn_data(insn);
        size_t size = qemu_plugin_insn_size(insn);
        int what = kind(code, size, where);
        qemu_plugin_register_vcpu_insn_exec_inline(insn, 0, &count[where], 1);
        if (repeats(code, size)) qemu_plugin_register_vcpu_insn_exec_inline(insn, 0, &count[REPEATED], 1);
        if (model) qemu_plugin_register_vcpu_mem_cb(insn, touch, 0, 3, NULL);
        if (what >= 0) qemu_plugin_register_vcpu_insn_exec_inline(insn, 0, &count[what], 1);
        if (what != -2) continue;
        uint64_t next = qemu_plugin_insn_vaddr(insn) + size;
        int j = 0;
        while (j < known && returns[j] != next) j++;
        if (j == known && known < 64) returns[known++] = next;
        qemu_plugin_register_vcpu_insn_exec_cb(insn, vmrun, 0, NULL);
    }
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    static const struct { const char *name; int what; } ways[] = {
        {"fault=", FAULT}, {"exception=", EXCEPTION}, {"interrupt=", INTERRUPT},
    };
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "counts=", 7)) {
            int file = open(argv[i] + 7, O_RDWR | O_CLOEXEC);
            void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
            if (mapped == MAP_FAILED || close(file)) return 1;
            count = mapped;
        }
        if (!strcmp(argv[i], "memory=on")) model = true;
        for (int j = 0; j < 3; j++)
            if (!strncmp(argv[i], ways[j].name, strlen(ways[j].name)) && entered < 256) {
                entries[entered].address = strtoull(argv[i] + strlen(ways[j].name), NULL, 16);
                entries[entered++].what = ways[j].what;
            }
    }
    if (!count) return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    return 0;
}
