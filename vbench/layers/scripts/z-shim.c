/* Before a program's own ioctl. Hercules opens a tap, whose name it leaves to the kernel: it gets one. QEMU wants KVM on a
   mainframe to protect pages from writes such that their contents are copied when written to (KVM_CAP_S390_COW), which needs
   a feature of the processor that Hercules does not have; KVM does without. */
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

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
    return syscall(SYS_ioctl, fd, request, given);
}
