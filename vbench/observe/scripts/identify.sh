#!/bin/sh
# What a machine says of itself beyond its facts: a name and a text on each line, the text empty where it does not say.
LC_ALL=C; export LC_ALL
# Leaf 0x40000000 of CPUID, 16 bytes: eax, then the signature (Linux, arch/x86/kernel/cpuid.c).
leaf=$(dd if=/dev/cpu/0/cpuid bs=16 skip=67108864 count=1 2>/dev/null | tail -c 12 | tr -cd '[:alnum:] ')
echo "hypervisor_leaf $leaf"
echo "virt_what $(virt-what 2>/dev/null | tr '\n' ' ')"
read -r _ user nice system idle wait irq soft steal _ </proc/stat
all=$((user + nice + system + idle + wait + irq + soft + steal))
echo "steal $((steal * 10000 / all)) of 10000 ticks"
