/* Do vector registers keep their values while a process computes without them?
 *
 * registers ROUNDS SPINS SEED: fills registers with a pattern, spins, reads them back with one of several first
 * instructions, and says how often something else was there. Two with different seeds show one another's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { unsigned char bytes[16]; } vector;

#define READ_BACK "movdqu %%xmm0, %0\n movdqu %%xmm1, %1"

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    long rounds = atol(argv[1]), spins = atol(argv[2]), seed = atol(argv[3]), wrong = 0;
    for (long round = 0; round < rounds; round++) {
        vector put[2], got[2];
        unsigned long scratch;
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < 16; j++) put[i].bytes[j] = (unsigned char)(seed * 37 + i * 16 + j + round);
        long left = spins;
        __asm__ volatile("movdqu %1, %%xmm0\n movdqu %2, %%xmm1\n 1: dec %0\n jnz 1b"
                         : "+r"(left) : "m"(put[0]), "m"(put[1]) : "cc", "xmm0", "xmm1");
        switch (round % 4) {
        case 0: __asm__ volatile(READ_BACK : "=m"(got[0]), "=m"(got[1])); break;
        case 1: __asm__ volatile("pmovmskb %%xmm0, %k2\n" READ_BACK : "=m"(got[0]), "=m"(got[1]), "=r"(scratch)); break;
        case 2: __asm__ volatile("movq %%xmm0, %2\n" READ_BACK : "=m"(got[0]), "=m"(got[1]), "=r"(scratch)); break;
        case 3: __asm__ volatile("pxor %%xmm4, %%xmm4\n" READ_BACK : "=m"(got[0]), "=m"(got[1]) : : "xmm4"); break;
        }
        wrong += memcmp(put, got, sizeof put) != 0;
    }
    printf("%ld wrong\n", wrong);
    return wrong != 0;
}
