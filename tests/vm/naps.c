// Sleeps as often as its argument says, 20 us each.
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv)
{
    const struct timespec nap = {0, 20000};
    for (int i = atoi(argv[argc - 1]); i > 0; i--)
        nanosleep(&nap, NULL);
    return 0;
}
