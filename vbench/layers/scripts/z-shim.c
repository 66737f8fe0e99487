/* Before a program's own ioctl. Hercules opens a tap, whose name it leaves to the kernel: it gets one. QEMU wants KVM on a
   mainframe to protect pages from writes such that their contents are copied when written to (KVM_CAP_S390_COW), which needs
   a feature of the processor that Hercules does not have; KVM does without.
   A guest's kernel asks once a minute whether the topology of processors has changed (PTF), as Hercules tells guests that its
   processors have one. KVM and this QEMU do not know that instruction, and the kernel would panic: the answer is no. */
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef __s390x__
enum { INSTRUCTION = 4, PTF = 0xb9a2, CHECK = 2 };

/* Whether a guest left for that question, which then has its answer: condition code 0 (Principles of Operation, PTF). */
static int answered(int fd)
{
    static __thread struct kvm_run *run; // a thread is a processor
    if (!run)
        run = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (run == MAP_FAILED)
        abort();
    if (run->exit_reason != KVM_EXIT_S390_SIEIC || run->s390_sieic.icptcode != INSTRUCTION || run->s390_sieic.ipa != PTF)
        return 0;
    if ((uint8_t)run->s.regs.gprs[run->s390_sieic.ipb >> 20 & 15] != CHECK)
        return 0;
    run->psw_mask &= ~(3ULL << 44);
    return 1;
}
#else
static int answered(int fd)
{
    return fd < 0;
}
#endif

int ioctl(int fd, unsigned long request, ...)
{
    va_list more;
    va_start(more, request);
    void *given = va_arg(more, void *);
    va_end(more);
    const char *name = getenv("VBENCH_TAP");
    if (request == TUNSETIFF && name)
        strncpy(((struct ifreq *)given)->ifr_name, name, IFNAMSIZ - 1);
    if (request == KVM_CHECK_EXTENSION && (long)given == KVM_CAP_S390_COW)
        return 1;
    long result;
    do
        result = syscall(SYS_ioctl, fd, request, given);
    while (request == KVM_RUN && result == 0 && answered(fd));
    return result;
}
