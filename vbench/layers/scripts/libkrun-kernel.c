/* Write libkrun's kernel to standard output, as libkrun puts it into a guest's memory. */
#include <stdio.h>

extern char *krunfw_get_kernel(size_t *load, size_t *entry, size_t *size);

int main(void)
{
    size_t load, entry, size;
    char *kernel = krunfw_get_kernel(&load, &entry, &size);

    if (load != 0x1000000)
        return 2; /* it would have to be linked for another place */
    return fwrite(kernel, 1, size, stdout) != size;
}
