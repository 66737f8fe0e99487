/* Rest: a plugin of QEMU that tells the time before an emulated processor rests.
 *
 * QEMU counts a processor's instructions when its thread has left it, and moves the clock of an idle machine to its next
 * timer in another thread, the main loop's (icount_start_warp_timer in softmmu/icount.c of QEMU 7.2). That looks only
 * whether the processor is halted. So when the loop comes by, woken by whatever, between the two, what was executed since
 * the last time is not counted yet, the step to the timer is too long by it, and the timer comes late. It does so once in
 * some hundred thousand rests: 200,000 sleeps of 20 us ended 2 to 14 ns apart in 6 of 8 runs, and a guest of VirtualBox,
 * which rests half a million times while it boots, was another one time in three.
 *
 * Here the instructions are counted before the halt: a block of code ends with it, so all of them are known by then.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

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

void *qemu_get_cpu(int);
void icount_update(void *cpu);

EXPORT int qemu_plugin_version = 1;

static const unsigned char HLT[] = {0xf4}, MWAIT[] = {0x0f, 0x01, 0xc9};

static void count(unsigned cpu, void *data)
{
    icount_update(qemu_get_cpu((int)cpu));
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(tb, qemu_plugin_tb_n_insns(tb) - 1);
    const void *code = qemu_plugin_insn_data(last);
    size_t size = qemu_plugin_insn_size(last);
    if ((size == sizeof HLT && !memcmp(code, HLT, size)) || (size == sizeof MWAIT && !memcmp(code, MWAIT, size)))
        qemu_plugin_register_vcpu_insn_exec_cb(last, count, 0, NULL);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    return 0;
}
