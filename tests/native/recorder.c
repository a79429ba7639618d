/* Preloaded into a process: notes in $ELLE_TEST_RECORD whom it connects to, what it looks up and where it writes. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void note(const char *what, const char *which) {
    const char *file = getenv("ELLE_TEST_RECORD");
    char line[4608];
    if (file == NULL) return;
    int length = snprintf(line, sizeof line, "%s %s\n", what, which);
    if (length >= (int)sizeof line) length = sizeof line - 1;
    /* By the number of the call: the functions below are the ones that are watched. */
    long fd = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) return;
    syscall(SYS_write, fd, line, (size_t)length);
    syscall(SYS_close, fd);
}

static void note_address(const char *what, const struct sockaddr *address) {
    char text[128] = "";
    if (address == NULL) return;
    if (address->sa_family == AF_INET) {
        inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, text, sizeof text);
        note(what, text);
    } else if (address->sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr, text, sizeof text);
        note(what, text);
    } else if (address->sa_family == AF_UNIX) {
        snprintf(text, sizeof text, "%s", ((const struct sockaddr_un *)address)->sun_path);
        note("unix", text);
    }
}

static void note_path(int directory, const char *path) {
    char full[4352], base[4096] = "", link[64];
    if (path == NULL) return;
    if (path[0] != '/') {
        if (directory == AT_FDCWD) {
            if (getcwd(base, sizeof base) == NULL) base[0] = 0;
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
            ssize_t length = readlink(link, base, sizeof base - 1);
            base[length > 0 ? length : 0] = 0;
        }
        snprintf(full, sizeof full, "%s/%s", base, path);
        path = full;
    }
    note("write", path);
}

static int writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC)); }

int connect(int fd, const struct sockaddr *address, socklen_t size) {
    int kind = SOCK_STREAM;
    socklen_t length = sizeof kind;
    getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &length);
    /* Connecting a socket of datagrams sends nothing: the kernel only chooses a route. */
    note_address(kind == SOCK_DGRAM ? "route" : "connect", address);
    return REAL(connect)(fd, address, size);
}

ssize_t sendto(int fd, const void *data, size_t n, int flags, const struct sockaddr *address, socklen_t size) {
    note_address("connect", address);
    return REAL(sendto)(fd, data, n, flags, address, size);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    note_address("connect", message->msg_name);
    return REAL(sendmsg)(fd, message, flags);
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned n, int flags) {
    for (unsigned i = 0; i < n; i++) note_address("connect", messages[i].msg_hdr.msg_name);
    return REAL(sendmmsg)(fd, messages, n, flags);
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    note("lookup", host != NULL ? host : "");
    return REAL(getaddrinfo)(host, service, hints, found);
}

struct hostent *gethostbyname(const char *host) {
    note("lookup", host);
    return REAL(gethostbyname)(host);
}

#define OPEN(name)                                                          \
    int name(const char *path, int flags, ...) {                            \
        va_list rest;                                                       \
        va_start(rest, flags);                                              \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                       \
        if (writes(flags)) note_path(AT_FDCWD, path);                       \
        return REAL(name)(path, flags, mode);                               \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                        \
    int name(int directory, const char *path, int flags, ...) {             \
        va_list rest;                                                       \
        va_start(rest, flags);                                              \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                       \
        if (writes(flags)) note_path(directory, path);                      \
        return REAL(name)(directory, path, flags, mode);                    \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                         \
    FILE *name(const char *path, const char *mode) {                        \
        if (strpbrk(mode, "wa+") != NULL) note_path(AT_FDCWD, path);        \
        return REAL(name)(path, mode);                                      \
    }
FOPEN(fopen)
FOPEN(fopen64)

int mkdir(const char *path, mode_t mode) {
    note_path(AT_FDCWD, path);
    return REAL(mkdir)(path, mode);
}

int mkdirat(int directory, const char *path, mode_t mode) {
    note_path(directory, path);
    return REAL(mkdirat)(directory, path, mode);
}

int rename(const char *from, const char *to) {
    note_path(AT_FDCWD, to);
    return REAL(rename)(from, to);
}
