/* What a RUN tries against the kernel, and what the kernel says: a line for each, "name answer". */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void say(const char *name, long result) {
    printf("wall %s %s\n", name, result >= 0 ? "done" : strerrorname_np(errno));
    fflush(stdout);
}

static int keys(void) {
    char text[64] = "";
    long key = syscall(SYS_keyctl, 10, -3, "user", "kpy-canary", 0); /* KEYCTL_SEARCH in the session keyring */
    say("key", key);
    if (key >= 0 && syscall(SYS_keyctl, 11, key, text, sizeof text - 1) >= 0) /* KEYCTL_READ */
        printf("wall read %s\n", text);
    return 0;
}

int main(int count, char **words) {
    if (count > 1 && !strcmp(words[1], "keys"))
        return keys();
    return 2;
}
