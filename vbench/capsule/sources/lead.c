/* Run a command on a machine over SSH as vbench runs one here: on given CPUs, and with an account of what it used.
 *
 * lead TOKEN CPUS MARK COMMAND [ARGUMENT ...]
 *
 * MARK goes to the environment as VBENCH_OWNER, by which what is left of a harness is found.
 *
 * With the token "-" it becomes the command, so that its process is the command's, and gives no account.
 *
 * CPUS is a list such as 2,3, or "-" for wherever the scheduler likes. When the command has ended, a line goes to
 * standard error: the token, "U", and of the command and its children microseconds of CPU time, the peak RSS in KiB (0
 * if this program's own was larger), context switches, and blocks of 512 bytes read and written (getrusage(2)). The
 * exit code is the command's, 128 + n if signal n ended it, 127 if it is not found. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static int pin(const char *list)
{
	cpu_set_t set;
	char *end;

	CPU_ZERO(&set);
	do {
		long cpu = strtol(list, &end, 10);

		if (end == list || cpu < 0 || cpu >= CPU_SETSIZE)
			return -1;
		CPU_SET(cpu, &set);
		list = end + 1;
	} while (*end == ',');
	return *end ? -1 : sched_setaffinity(0, sizeof set, &set);
}

int main(int argc, char **argv)
{
	struct rusage own, used;
	int status;
	pid_t child;

	if (argc < 5)
		return 125;
	if (strcmp(argv[2], "-") && pin(argv[2])) {
		fprintf(stderr, "cannot run on CPUs %s: %s\n", argv[2], strerror(errno));
		return 125;
	}
	setenv("VBENCH_OWNER", argv[3], 1);
	if (!strcmp(argv[1], "-")) {
		execvp(argv[4], argv + 4);
		perror(argv[4]);
		return errno == ENOENT ? 127 : 126;
	}
	getrusage(RUSAGE_SELF, &own);
	child = vfork();
	if (child == 0) {
		execvp(argv[4], argv + 4);
		perror(argv[4]);
		_exit(errno == ENOENT ? 127 : 126);
	}
	if (child < 0) {
		perror("fork");
		return 125;
	}
	/* What is meant for the command reaches it as well, as it is in the same group; this one stays to report. */
	signal(SIGHUP, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	while (wait4(child, &status, 0, &used) < 0)
		if (errno != EINTR)
			return 125;
	fprintf(stderr, "%s U %lld %ld %ld %ld %ld\n", argv[1],
		(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000LL + used.ru_utime.tv_usec + used.ru_stime.tv_usec,
		used.ru_maxrss > own.ru_maxrss ? used.ru_maxrss : 0, used.ru_nvcsw + used.ru_nivcsw, used.ru_inblock,
		used.ru_oublock);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
