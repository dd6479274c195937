/* An ordinary program that asks libc, for the tests beside it. Prints what went wrong; exits 0 when nothing did. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <pwd.h>
#include <shadow.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FAIL(...) do { fprintf(stderr, __VA_ARGS__); fputc('\n', stderr); exit(1); } while (0)

static const char *wanted;
static uid_t wanted_uid;

static long milliseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* getpwnam_r's own answer; *found says whether there was a record, and it must be the right one. */
static int ask(const char *name, int *found)
{
    struct passwd record, *result = (void *) 1;
    char buffer[4096];
    int rc = getpwnam_r(name, &record, buffer, sizeof buffer, &result);
    *found = result != NULL;
    if (result && (strcmp(result->pw_name, name) || strcmp(result->pw_passwd, "x")))
        FAIL("wrong record for %s: %s", name, result->pw_name);
    if (result && wanted_uid && result->pw_uid != wanted_uid)
        FAIL("wrong uid for %s: %u", name, result->pw_uid);
    return rc;
}

static void must_find(void)
{
    int found, rc = ask(wanted, &found);
    if (rc || !found) FAIL("%s: rc %d found %d", wanted, rc, found);
}

/* name NAME: "rc found milliseconds" */
static void show(void)
{
    int found;
    long start = milliseconds();
    int rc = ask(wanted, &found);
    printf("%d %d %ld\n", rc, found, milliseconds() - start);
}

static void descriptors(void)
{
    int before[256];
    for (int fd = 0; fd < 256; fd++) before[fd] = fcntl(fd, F_GETFD);
    for (int n = 0; n < 200; n++) must_find();
    for (int fd = 0; fd < 256; fd++)
        if (before[fd] != fcntl(fd, F_GETFD)) FAIL("descriptor %d was left open", fd);
}

static void *look_up_many(void *count)
{
    for (long n = 0; n < (long) count; n++) must_find();
    return NULL;
}

static pthread_key_t key;

static void *look_up_once(void *none)
{
    pthread_setspecific(key, &key);
    must_find();
    return none;
}

static void threads(void)
{
    pthread_t all[32];
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 * 1024);
    for (int n = 0; n < 32; n++)
        if (pthread_create(&all[n], &attributes, look_up_many, (void *) 100L)) FAIL("pthread_create");
    for (int n = 0; n < 32; n++) pthread_join(all[n], NULL);
}

static int open_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 1024; fd++) count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void at_thread_end(void *none) { (void) none; must_find(); }

/* Many threads that live for one look-up, and look up once more while they end. */
static void short_threads(void)
{
    pthread_key_create(&key, at_thread_end);
    int before = open_descriptors();
    for (int n = 0; n < 1000; n++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, look_up_once, NULL)) FAIL("pthread_create");
        pthread_join(thread, NULL);
    }
    if (open_descriptors() != before) FAIL("%d descriptors, then %d", before, open_descriptors());
}

static volatile int over;

static void *look_up_until_over(void *none)
{
    while (!over) must_find();
    return none;
}

/* Children of a process whose threads are in the middle of look-ups and of a walk. */
static void *walk_until_over(void *none)
{
    while (!over) { setpwent(); while (getpwent()) ; endpwent(); }
    return none;
}

static void forks(void)
{
    pthread_t all[3];
    pthread_create(&all[0], NULL, look_up_until_over, NULL);
    pthread_create(&all[1], NULL, look_up_until_over, NULL);
    pthread_create(&all[2], NULL, walk_until_over, NULL);
    for (int n = 0; n < 200; n++) {
        pid_t child = fork();
        if (child < 0) FAIL("fork");
        if (!child) {
            /* As daemons do it: everything closed, and other descriptors in their places. */
            for (int fd = 3; fd < 64; fd++) close(fd);
            for (int fd = 3; fd < 6; fd++) dup2(2, fd);
            must_find();
            for (int fd = 3; fd < 6; fd++) if (fcntl(fd, F_GETFD)) FAIL("descriptor %d was taken away", fd);
            _exit(0);
        }
        int status;
        waitpid(child, &status, 0);
        if (status) FAIL("child %d ended with %x", n, status);
    }
    over = 1;
    for (int n = 0; n < 3; n++) pthread_join(all[n], NULL);
}

/* closed MASK NAME: standard descriptors of MASK are closed before, and still are after. */
static void closed(int mask)
{
    int broken = dup(2);
    fcntl(broken, F_SETFD, FD_CLOEXEC);
    for (int fd = 0; fd < 3; fd++)
        if (mask & 1 << fd) close(fd);
    int found, rc = ask(wanted, &found);
    int bad = rc || !found;
    for (int fd = 0; fd < 3; fd++)
        if (mask & 1 << fd && fcntl(fd, F_GETFD) >= 0) bad = 1;
    if (bad) { dprintf(broken, "closed %d: rc %d found %d\n", mask, rc, found); _exit(1); }
}

/* Every buffer size: ERANGE with no result until it fits, then always the record; nothing behind the buffer. */
static void sweep(void)
{
    size_t fits = 0;
    for (size_t size = 0; size <= 1200; size++) {
        struct passwd record, *result = (void *) 1;
        char buffer[1300];
        memset(buffer, 0x55, sizeof buffer);
        int rc = getpwnam_r(wanted, &record, buffer, size, &result);
        for (size_t at = size; at < sizeof buffer; at++)
            if (buffer[at] != 0x55) FAIL("size %zu: byte %zu behind the buffer was written", size, at);
        if (rc == ERANGE && !result && !fits) continue;
        if (rc || !result) FAIL("size %zu: rc %d result %p", size, rc, (void *) result);
        if (!fits) fits = size;
        char *pointers[] = { record.pw_name, record.pw_passwd, record.pw_gecos, record.pw_dir, record.pw_shell };
        for (int n = 0; n < 5; n++)
            if (pointers[n] < buffer || pointers[n] >= buffer + size) FAIL("size %zu: pointer %d outside", size, n);
    }
    if (!fits || fits > 1000) FAIL("the record first fits %zu bytes", fits);
    for (size_t size = 0; size <= 300; size++) {
        struct group record, *result;
        char space[400];
        for (int offset = 0; offset < 8; offset++) {
            int rc = getgrnam_r("example.org", &record, space + offset, size, &result);
            if (rc == ERANGE && !result) continue;
            if (rc || !result) FAIL("group size %zu: rc %d", size, rc);
            if ((size_t) record.gr_mem % sizeof (char *)) FAIL("group members misaligned");
            if (record.gr_mem[0]) FAIL("the group has members");
        }
    }
}

/* The module's own functions: status and errno of each outcome. EXPECT is the status of a look-up of NAME. */
typedef int by_name(const char *, void *, char *, size_t, int *);
typedef int by_id(unsigned, void *, char *, size_t, int *);
typedef int next(void *, char *, size_t, int *);
typedef int plain(void);
typedef int initgroups_dyn(const char *, gid_t, long *, long *, gid_t **, long, int *);

static void *module;

static void *symbol(const char *name)
{
    char whole[64];
    snprintf(whole, sizeof whole, "_nss_indimail_%s", name);
    void *found = dlsym(module, whole);
    if (!found) FAIL("no symbol %s", whole);
    return found;
}

static void check(const char *what, int status, int code, int expected_status, int expected_errno)
{
    if (status != expected_status || code != expected_errno)
        FAIL("%s: status %d errno %d, expected %d %d", what, status, code, expected_status, expected_errno);
}

static void contract(const char *state)
{
    module = dlopen("libnss_indimail.so.2", RTLD_NOW);
    if (!module) FAIL("%s", dlerror());
    /* With the daemon up: found 1 (errno stays), absent 0 ENOENT, small -2 ERANGE. Away: -1 EAGAIN. Late: -2 EAGAIN. */
    int up = !strcmp(state, "up");
    int status = up ? 1 : !strcmp(state, "away") ? -1 : -2;
    char buffer[4096];
    union { struct passwd p; struct group g; struct spwd s; } record;
    const char *names[] = { "getpwnam_r", "getspnam_r", "getgrnam_r" };
    const char *keys[] = { wanted, wanted, "example.org" };
    const char *absent[] = { "nobody@example.org", "nobody@example.org", "nowhere.example" };
    for (int n = 0; n < 3; n++) {
        by_name *f = symbol(names[n]);
        errno = EXDEV;
        int s = f(keys[n], &record, buffer, sizeof buffer, &errno);
        check(names[n], s, errno, status, up ? EXDEV : EAGAIN);
        errno = EXDEV;
        s = f(absent[n], &record, buffer, sizeof buffer, &errno);
        check("absent", s, errno, up ? 0 : status, up ? ENOENT : EAGAIN);
        errno = EXDEV;
        s = f("qmail", &record, buffer, sizeof buffer, &errno);
        check("a name of the system's own", s, errno, 0, ENOENT);
        if (!up) continue;
        s = f(keys[n], &record, buffer, 3, &errno);
        check("small buffer", s, errno, -2, ERANGE);
        s = f(keys[n], &record, NULL, 0, &errno);
        check("no buffer", s, errno, -2, ERANGE);
    }
    const char *ids[] = { "getpwuid_r", "getgrgid_r" };
    unsigned known[] = { 8001, 7001 };
    for (int n = 0; n < 2; n++) {
        by_id *f = symbol(ids[n]);
        errno = EXDEV;
        int s = f(known[n], &record, buffer, sizeof buffer, &errno);
        check(ids[n], s, errno, status, up ? EXDEV : EAGAIN);
        s = f(0, &record, buffer, sizeof buffer, &errno);
        check("id 0", s, errno, 0, ENOENT);
        s = f(123456, &record, buffer, sizeof buffer, &errno);
        check("absent id", s, errno, up ? 0 : status, up ? ENOENT : EAGAIN);
    }
    const char *maps[] = { "pw", "gr", "sp" };
    int counts[] = { 4, 2, 4 };
    for (int n = 0; n < 3; n++) {
        char name[16];
        snprintf(name, sizeof name, "get%sent_r", maps[n]);
        next *get = symbol(name);
        snprintf(name, sizeof name, "set%sent", maps[n]);
        plain *set = symbol(name);
        snprintf(name, sizeof name, "end%sent", maps[n]);
        plain *end = symbol(name);
        if (!up) {
            int s = get(&record, buffer, sizeof buffer, &errno);
            check(maps[n], s, errno, status, EAGAIN);
            continue;
        }
        /* Without set; after set; after end: the same records, and a small buffer loses none. */
        for (int round = 0; round < 3; round++) {
            int got = 0, s;
            for (;;) {
                s = get(&record, buffer, 3, &errno);
                if (s != 0) check("walk with a small buffer", s, errno, -2, ERANGE);
                errno = EXDEV;
                s = get(&record, buffer, sizeof buffer, &errno);
                if (s != 1) break;
                if (errno != EXDEV) FAIL("errno %d after a record", errno);
                got++;
            }
            check("after the last", s, errno, 0, ENOENT);
            if (got != counts[n]) FAIL("%s: %d records in round %d", maps[n], got, round);
            if ((round ? end : set)() != 1) FAIL("set or end failed");
        }
    }
    initgroups_dyn *groups = symbol("initgroups_dyn");
    long start = 1, size = 1;
    gid_t *array = malloc(sizeof *array);
    array[0] = 8001;
    errno = EXDEV;
    int s = groups(wanted, 8001, &start, &size, &array, -1, &errno);
    check("initgroups_dyn", s, errno, status, up ? EXDEV : EAGAIN);
    if (up && (start != 2 || array[1] != 7001)) FAIL("groups: %ld, %u", start, array[1]);
    s = groups("root", 0, &start, &size, &array, -1, &errno);
    check("groups of root", s, errno, 0, ENOENT);
}

/* A walk is not disturbed by look-ups, and works without setpwent. */
static void walk(void)
{
    int ours = 0, all = 0;
    struct passwd *p;
    while ((p = getpwent())) {
        if (strchr(p->pw_name, '@')) ours++;
        if (++all > 10000) FAIL("the walk does not end");
        must_find();
        getpwuid(8003);
    }
    if (ours != 4) FAIL("%d of our records", ours);
}

static void ignore(int signal) { (void) signal; }

/* Look-ups under a storm of signals whose handler does not restart system calls. */
static void storm(void)
{
    struct sigaction action = { .sa_handler = ignore };
    sigaction(SIGALRM, &action, NULL);
    struct itimerval timer = { { 0, 500 }, { 0, 500 } };
    setitimer(ITIMER_REAL, &timer, NULL);
    for (int n = 0; n < 500; n++) must_find();
}

static void dispositions(void)
{
    struct sigaction before, after;
    sigset_t mask_before, mask_after;
    sigaction(SIGPIPE, NULL, &before);
    sigprocmask(SIG_BLOCK, NULL, &mask_before);
    int found;
    ask(wanted, &found);
    ask("nobody@example.org", &found);
    sigaction(SIGPIPE, NULL, &after);
    sigprocmask(SIG_BLOCK, NULL, &mask_after);
    if (before.sa_handler != after.sa_handler || before.sa_handler != SIG_DFL) FAIL("SIGPIPE was changed");
    if (memcmp(&mask_before, &mask_after, sizeof mask_after)) FAIL("the signal mask was changed");
}

static void few_descriptors(void)
{
    struct rlimit limit = { 3, 3 };
    setrlimit(RLIMIT_NOFILE, &limit);
    int found;
    errno = 0;
    int rc = ask(wanted, &found);
    if (found || rc == 0) FAIL("without descriptors: rc %d found %d", rc, found);
}

/* Where all low descriptor numbers are in use; the one of a connection is past what select(2) can take. */
static void many_descriptors(void)
{
    struct rlimit limit = { 4096, 4096 };
    if (setrlimit(RLIMIT_NOFILE, &limit)) FAIL("setrlimit");
    int last = 0;
    while (last < 2000) if ((last = dup(0)) < 0) FAIL("dup: %d", errno);
    must_find();
}

/* nomemory STEP NAME: look-ups and a walk while malloc fails, once or from a call on. "calls of a look-up, records, failures" */
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t),
    *__libc_memalign(size_t, size_t);
static _Thread_local long calls, fail_from, fail_to;

static int fails(void) { calls++; return calls >= fail_from && calls < fail_to; }
void *malloc(size_t n) { if (fails()) { errno = ENOMEM; return NULL; } return __libc_malloc(n); }
void *calloc(size_t n, size_t m) { if (fails()) { errno = ENOMEM; return NULL; } return __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { if (fails()) { errno = ENOMEM; return NULL; } return __libc_realloc(p, n); }
int posix_memalign(void **p, size_t a, size_t n)
{
    if (fails()) return ENOMEM;
    *p = __libc_memalign(a, n);
    return *p ? 0 : ENOMEM;
}

static void without_memory(long step)
{
    module = dlopen("libnss_indimail.so.2", RTLD_NOW);
    if (!module) FAIL("%s", dlerror());
    by_name *f = symbol("getpwnam_r");
    next *get = symbol("getpwent_r");
    plain *end = symbol("endpwent");
    struct passwd record;
    char buffer[4096];
    int code = 0;
    /* The first call makes what is kept. */
    if (f(wanted, &record, buffer, sizeof buffer, &code) != 1) FAIL("with memory");
    long before = calls;
    if (f(wanted, &record, buffer, sizeof buffer, &code) != 1) FAIL("with memory");
    long needed = calls - before;
    if (needed < 1) FAIL("a look-up makes no calls of malloc: this proves nothing");
    for (long n = 0; n < needed; n++) {
        /* One call fails, or all from there on. */
        for (int all = 0; all < 2; all++) {
            fail_from = calls + 1 + n;
            fail_to = all ? 1L << 40 : fail_from + 1;
            int status = f(wanted, &record, buffer, sizeof buffer, &code);
            fail_to = 0;
            if (status != 1) check("a look-up without memory", status, code, -1, ENOMEM);
            else if (strcmp(record.pw_name, wanted) || record.pw_uid != 8001) FAIL("a wrong record, after %ld", n);
            if (f(wanted, &record, buffer, sizeof buffer, &code) != 1) FAIL("with memory again, after %ld", n);
        }
    }
    /* A walk goes on where it was. */
    int got = 0, late = 0;
    for (long n = 0; ; n += step) {
        fail_from = calls + 1 + n;
        fail_to = 1L << 40;
        int status = get(&record, buffer, sizeof buffer, &code);
        fail_to = 0;
        if (status == 1) got++;
        else if (status == 0) break;
        else if (status == -1 && code == ENOMEM && late++ < 10000) continue;
        else FAIL("walk: status %d errno %d after %d", status, code, got);
    }
    end();
    printf("%ld %d %d\n", needed, got, late);
}

/* ask until LINE is read from stdin; "right wrong later" counts */
static void until_told(void)
{
    long right = 0, no = 0, later = 0;
    fcntl(0, F_SETFL, O_NONBLOCK);
    char byte;
    while (read(0, &byte, 1) < 0) {
        int found, rc = ask(wanted, &found);
        if (rc == 0 && found) right++;
        else if (rc == 0) no++;
        else if (later++ == 0) { printf("waited\n"); fflush(stdout); }
        if (rc) { struct timespec pause = { 0, 1000000 }; nanosleep(&pause, NULL); }
    }
    printf("%ld %ld %ld\n", right, no, later);
}

/* watch UNTIL NAME: "yes" when NAME is found, "no" when it is not, each time that changes, until stdin ends */
static void watch(void)
{
    int before = -1;
    fcntl(0, F_SETFL, O_NONBLOCK);
    char byte;
    while (read(0, &byte, 1) < 0) {
        int found, rc = ask(wanted, &found), now = rc ? 2 : found;
        if (now != before) { puts(now == 2 ? "later" : now ? "yes" : "no"); fflush(stdout); }
        before = now;
    }
}

/* crowd NAME: 16 threads look up until stdin ends; "right wrong later" counts */
static long counts[16][3];

static void *crowd_member(void *mine)
{
    long *count = mine;
    while (!over) {
        int found, rc = ask(wanted, &found);
        count[rc ? 2 : !found]++;
    }
    return NULL;
}

static void crowd(void)
{
    pthread_t all[16];
    for (int n = 0; n < 16; n++) pthread_create(&all[n], NULL, crowd_member, counts[n]);
    char byte;
    while (read(0, &byte, 1) > 0) {
        /* A child in the middle of it. */
        pid_t child = fork();
        if (!child) { must_find(); _exit(0); }
        int status;
        waitpid(child, &status, 0);
        if (status) FAIL("a child ended with %x", status);
    }
    over = 1;
    long sums[3] = { 0, 0, 0 };
    for (int n = 0; n < 16; n++) {
        pthread_join(all[n], NULL);
        for (int k = 0; k < 3; k++) sums[k] += counts[n][k];
    }
    printf("%ld %ld %ld\n", sums[0], sums[1], sums[2]);
}

int main(int argc, char **argv)
{
    if (argc < 3) return 2;
    const char *what = argv[1];
    wanted = argv[argc - 1];
    if (!strcmp(what, "name")) show();
    else if (!strcmp(what, "twice")) { show(); show(); }
    else if (!strcmp(what, "descriptors")) descriptors();
    else if (!strcmp(what, "threads")) threads();
    else if (!strcmp(what, "forks")) forks();
    else if (!strcmp(what, "closed")) closed(atoi(argv[2]));
    else if (!strcmp(what, "sweep")) sweep();
    else if (!strcmp(what, "contract")) contract(argv[2]);
    else if (!strcmp(what, "walk")) walk();
    else if (!strcmp(what, "storm")) storm();
    else if (!strcmp(what, "signals")) dispositions();
    else if (!strcmp(what, "few")) few_descriptors();
    else if (!strcmp(what, "short")) short_threads();
    else if (!strcmp(what, "many")) many_descriptors();
    else if (!strcmp(what, "nomemory")) without_memory(atol(argv[2]));
    else if (!strcmp(what, "until")) until_told();
    else if (!strcmp(what, "watch")) watch();
    else if (!strcmp(what, "crowd")) crowd();
    else if (!strcmp(what, "atexit")) atexit(must_find);
    else return 2;
    return 0;
}
