/* libkrun's kernel as an ELF file, and what tells QEMU where it is entered (XEN_ELFNOTE_PHYS32_ENTRY, PVH). */
        .section .note.Xen, "a", @note
        .long 4, 8, 18
        .asciz "Xen"
        .quad start

        .section .text, "ax"
        .globl start
start:  .incbin "kernel.raw"
