/* What a RUN may try on Unix sockets that are not its own: "reached WAY" for each way that leads to one. And what it must be
 * able to do with its own: "own WAY". */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *place;
static char path[200];
#define WAY(what) printf("%s %s\n", (errno = 0, (what) < 0) ? strerrorname_np(errno) : "reached", #what)

static socklen_t address(struct sockaddr_un *to, const char *name) {
    memset(to, 0, sizeof *to);
    to->sun_family = AF_UNIX;
    strcpy(to->sun_path, name);
    return offsetof(struct sockaddr_un, sun_path) + strlen(name) + 1;
}

static int stream(const char *name, int kind) {
    struct sockaddr_un to;
    int ours = socket(AF_UNIX, kind, 0);
    return connect(ours, (void *)&to, address(&to, name));
}

static int relative(void) {
    return chdir(place) < 0 ? -1 : stream("stream", SOCK_STREAM);
}

static int by_descriptor(int flags) {
    snprintf(path, sizeof path, flags ? "/proc/self/fd/%d" : "/proc/self/fd/%d/stream", open(flags ? "stream" : ".", O_PATH));
    return stream(path, SOCK_STREAM);
}

static int by_link(void) {
    symlink(place, "/tmp/link");
    return stream("/tmp/link/stream", SOCK_STREAM);
}

static int datagram(int kind, int how, int pair) {
    struct sockaddr_un to;
    struct iovec data = {"x", 1};
    struct mmsghdr many = {{&to, address(&to, "datagram"), &data, 1, 0, 0, 0}, 0};
    int ours[2] = {-1, -1};
    if (pair) socketpair(AF_UNIX, kind, 0, ours);
    else ours[0] = socket(AF_UNIX, kind, 0);
    shutdown(ours[0], SHUT_RD);
    if (pair) close(ours[1]);
    signal(SIGPIPE, SIG_IGN);
    switch (how) {
        case 0: return connect(ours[0], (void *)&to, many.msg_hdr.msg_namelen) || send(ours[0], "x", 1, 0) < 0 ? -1 : 0;
        case 1: return sendto(ours[0], "x", 1, 0, (void *)&to, many.msg_hdr.msg_namelen);
        case 2: return sendmsg(ours[0], &many.msg_hdr, 0);
        default: return sendmmsg(ours[0], &many, 1, 0) == 1 ? 0 : -1;
    }
}

#ifdef __x86_64__
/* The calls of i386, from memory below 4 GiB. */
static int old(int call, int sub, uint32_t *arguments) {
    int answer;
    __asm__ volatile("int $0x80" : "=a"(answer) : "a"(call), "b"(sub), "c"(arguments), "d"(sub) : "memory", "r8", "r9", "r10", "r11");
    if (answer < 0) errno = -answer, answer = -1;
    return answer;
}

static int old_socketcall(int kind) {
    char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    uint32_t *arguments = (void *)low;
    memcpy(arguments, (uint32_t[]){AF_UNIX, kind, 0}, 12);
    int ours = old(102, 1, arguments);
    if (ours < 0) return -1;
    struct sockaddr_un *to = (void *)(low + 100);
    uint32_t size = address(to, kind == SOCK_STREAM ? "stream" : "datagram");
    *(char *)(low + 90) = 'x';
    memcpy(arguments, (uint32_t[]){ours, (uintptr_t)to, size}, 12);
    if (kind == SOCK_STREAM) return old(102, 3, arguments);
    memcpy(arguments, (uint32_t[]){ours, (uintptr_t)low + 90, 1, 0, (uintptr_t)to, size}, 24);
    return old(102, 11, arguments);
}

static int old_inet(void) {
    uint32_t *arguments = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    memcpy(arguments, (uint32_t[]){AF_INET, SOCK_STREAM, 0}, 12);
    int ours = old(102, 1, arguments), family;
    socklen_t size = sizeof family;
    return getsockopt(ours, SOL_SOCKET, SO_DOMAIN, &family, &size) < 0 || family != AF_INET ? -1 : 0;
}
#endif

/* Another thread changes what a call has been looked at for: the address, or the socket. */
static struct sockaddr_un harmless, wanted;
static volatile struct sockaddr_un shared;
static volatile int stop;
static int slot, spare, internet;

static void *change(void *what) {
    while (!stop) {
        if (what) {
            dup2(spare, slot);
            dup2(internet, slot);
        } else {
            shared.sun_path[0] = wanted.sun_path[0];
            shared.sun_path[0] = harmless.sun_path[0];
        }
    }
    return NULL;
}

static int race(int descriptors) {
    pthread_t thread;
    struct timeval start, now;
    int reached = 0, tries = 0;
    socklen_t size = address(&wanted, "stream");
    address(&harmless, "xtream");
    spare = socket(AF_UNIX, SOCK_STREAM, 0);
    internet = socket(AF_INET, SOCK_STREAM, 0);
    slot = dup(internet);
    memcpy((void *)&shared, descriptors ? &wanted : &harmless, sizeof shared);
    stop = 0;
    pthread_create(&thread, NULL, change, descriptors ? (void *)&stop : NULL);
    gettimeofday(&start, NULL);
    do {
        int ours = descriptors ? slot : socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(ours, (void *)&shared, size) == 0) reached = 1;
        if (!descriptors) close(ours);
        tries++;
        gettimeofday(&now, NULL);
    } while (now.tv_sec - start.tv_sec < 2 && !reached);
    stop = 1;
    pthread_join(thread, NULL);
    printf("tried %s\n", tries > 100 ? "often" : "seldom");
    errno = EACCES;
    return reached ? 0 : -1;
}

static void own(const char *way, const char *name, const char *other, int kind) {
    struct sockaddr_un to;
    char answer[3] = "";
    int server = socket(AF_UNIX, kind, 0), one;
    umask(027);
    int fine = bind(server, (void *)&to, address(&to, name)) == 0 && listen(server, 5) == 0;
    if (fork() == 0) {
        one = socket(AF_UNIX, kind, 0);
        fine = connect(one, (void *)&to, address(&to, other)) == 0 && send(one, "hi", 2, 0) == 2;
        _exit(!fine);
    }
    int status, peer = accept(server, NULL, NULL);
    struct stat st;
    fine = fine && recv(peer, answer, 2, 0) == 2 && strcmp(answer, "hi") == 0;
    fine = fine && stat(other, &st) == 0 && (st.st_mode & 0777) == 0750 && S_ISSOCK(st.st_mode);
    wait(&status);
    printf("own %s %s\n", way, fine && status == 0 ? "works" : strerrorname_np(errno));
}

int main(int argc, char **argv) {
    place = argv[1];
    setvbuf(stdout, NULL, _IOLBF, 0);
    snprintf(path, sizeof path, "%s/stream", place);
    WAY(stream(path, SOCK_STREAM));
    WAY(stream(path, SOCK_SEQPACKET));
    WAY(relative());
    WAY(by_descriptor(0));
    WAY(by_descriptor(O_PATH));
    WAY(by_link());
    WAY(link("stream", "/tmp/hard"));
    WAY(stream("/tmp/hard", SOCK_STREAM));
    WAY(bind(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&(struct sockaddr_un){AF_UNIX, "made"}, sizeof(struct sockaddr_un)));
    for (int kind = SOCK_DGRAM; kind <= SOCK_RAW; kind++)
        for (int how = 0; how < 4; how++)
            WAY(datagram(kind, how, 0));
    for (int how = 1; how < 4; how++) datagram(SOCK_DGRAM, how, 1); /* whoever listens says whether it came */
#ifdef __x86_64__
    WAY(old_socketcall(SOCK_STREAM));
    WAY(old_socketcall(SOCK_DGRAM));
    printf("own socketcall %s\n", old_inet() < 0 ? strerrorname_np(errno) : "works");
#endif
    WAY(race(0));
    WAY(race(1));
    chdir("/tmp");
    own("stream", "/tmp/own", "/tmp/own", SOCK_STREAM);
    own("relative", "relative", "/tmp/relative", SOCK_STREAM);
    own("seqpacket", "/tmp/../tmp/packets", "packets", SOCK_SEQPACKET);
    int pair[2];
    char answer[9] = "";
    socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
    send(pair[0], "one", 3, 0), send(pair[0], "two", 3, 0);
    printf("own pair %s\n", recv(pair[1], answer, 8, 0) == 3 && !strcmp(answer, "one") && recv(pair[1], answer, 8, 0) == 3 ? "works" : "fails");
    return 0;
}
