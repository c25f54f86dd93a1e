/* What a RUN may do to never end. Bounded by those who start it: a limit of processes, a time limit. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void say(const char *word, int number) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("%s %d at %ld.%03ld\n", word, number, (long)now.tv_sec, now.tv_nsec / 1000000);
    fflush(stdout);
}

/* Chains of processes: each forks and exits. own: each leaves the session and the group of the one before. */
static void loops(int count, int own) {
    for (int i = 0; i < count; i++)
        if (fork() == 0)
            for (;;) {
                if (own) setsid();
                if (fork() > 0) _exit(0);
            }
}

/* Each doubles, until there may be no more. */
static void bomb(int own) {
    if (fork() == 0)
        for (;;)
            if (fork() == 0 && own) setsid();
}

/* How many of this name live, in the /proc that is here. */
static int alive(const char *name) {
    char path[300], found[32];
    int count = 0;
    DIR *directory = opendir("/proc");
    if (!directory) return -1;
    for (struct dirent *entry; (entry = readdir(directory));) {
        snprintf(path, sizeof path, "/proc/%s/comm", entry->d_name);
        FILE *file = atoi(entry->d_name) && atoi(entry->d_name) != getpid() ? fopen(path, "r") : NULL;
        if (file) {
            if (fgets(found, sizeof found, file) && !strncmp(found, name, strlen(name))) count++;
            fclose(file);
        }
    }
    return count;
}

int main(int argc, char **argv) {
    const char *what = argv[1], *name = strrchr(argv[0], '/') + 1;
    int seconds = argc > 2 ? atoi(argv[2]) : 1;
    pid_t parent = getppid();
    prctl(PR_SET_PDEATHSIG, 0); /* nobody's death ends this one */
    if (!strcmp(what, "check")) {
        say("alive", alive(name));
        return 0;
    }
    if (!strcmp(what, "loops")) loops(40, 0);
    if (!strcmp(what, "sessions")) loops(40, 1);
    if (!strcmp(what, "bomb")) bomb(0);
    if (!strcmp(what, "bomb-sessions")) bomb(1);
    say("started", getpid());
    if (!strcmp(what, "prlimit")) {
        struct rlimit one = {1, 1};
        loops(2, 1);
        say("attacked", prlimit(parent, RLIMIT_CPU, &one, NULL) ? errno : 0);
        struct stat st; /* each costs the emulator of root some time */
        for (time_t end = time(NULL) + 10; time(NULL) < end;) stat("/opt/none", &st);
    }
    if (!strcmp(what, "kill") || !strcmp(what, "stop")) {
        loops(4, 1);
        say("attacked", kill(parent, *what == 'k' ? SIGKILL : SIGSTOP) ? errno : 0);
    }
    if (!strcmp(what, "traced")) {
        say("attacked", ptrace(PTRACE_TRACEME, 0, NULL, NULL) ? errno : 0);
        raise(SIGSTOP);
    }
    sleep(seconds);
    say("ended", 0);
    return 0;
}
