/* The source of this program, carried inside it: a fixed tree for the workload that compiles one. */
#define _GNU_SOURCE
#include "probe.h"

#include <fcntl.h>
#include <unistd.h>

/* The assembler looks for these where it runs, and in the folders given to it with -I. */
#define CARRY(symbol, file)                                                                                \
    __asm__(".section .rodata\n" #symbol ": .incbin \"" file "\"\n" #symbol "_end:\n.text\n");              \
    extern const char symbol[], symbol##_end[];

CARRY(probe_c, "probe.c")
CARRY(probe_cpu_c, "probe_cpu.c")
CARRY(probe_mem_c, "probe_mem.c")
CARRY(probe_net_c, "probe_net.c")
CARRY(probe_os_c, "probe_os.c")
CARRY(probe_source_c, "probe_source.c")
CARRY(probe_h, "probe.h")

static const struct {
    const char *name, *begin, *end;
} files[] = {
    {"probe.c", probe_c, probe_c_end},
    {"probe_cpu.c", probe_cpu_c, probe_cpu_c_end},
    {"probe_mem.c", probe_mem_c, probe_mem_c_end},
    {"probe_net.c", probe_net_c, probe_net_c_end},
    {"probe_os.c", probe_os_c, probe_os_c_end},
    {"probe_source.c", probe_source_c, probe_source_c_end},
    {"probe.h", probe_h, probe_h_end},
};

int run_source(const struct options *o) {
    enter_directory(o);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        int fd = open(files[i].name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (fd < 0) die(files[i].name);
        write_full(fd, files[i].begin, (size_t)(files[i].end - files[i].begin));
        if (close(fd) != 0) die(files[i].name);
    }
    return 0;
}
