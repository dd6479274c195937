/* A PAM application that prints the number each call answers.
 *
 * client CONFDIR SERVICE USER OPERATION...
 *   password=TEXT  the next password the conversation gives; without one it answers PAM_CONV_ERR
 *   rhost=TEXT     sets PAM_RHOST
 *   auth nonull acct cred open close passwd   the calls; prints "NAME NUMBER"
 *   user           prints PAM_USER: "user TEXT" ("-" when it is not set)
 *   close0 close1 close2   closes that descriptor
 *   descriptors    prints how many descriptors are open: "descriptors NUMBER"
 *   again=N        N times pam_start, pam_authenticate with the next password, pam_end
 *   parallel=N     N threads that each do that 50 times
 *   alarms         from now on SIGALRM every millisecond, without SA_RESTART
 *   memory         prints the resident memory in KiB: "memory NUMBER"
 *   scarce         pam_acct_mgmt with memory that ends at each point on the way; prints the worst number
 *                  with memory again after each, and how often the call failed: "scarce NUMBER FAILURES"
 * Output goes to descriptor 9, so that the standard ones may be closed.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <security/pam_appl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

static const char *passwords[16];
static int given, used;

static void say(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vdprintf(9, format, list);
    va_end(list);
}

/* `data` is the one password of a thread, else the passwords come from the list. */
static int converse(int count, const struct pam_message **messages, struct pam_response **replies, void *data)
{
    struct pam_response *all = calloc((size_t)count, sizeof *all);
    for (int i = 0; i < count; i++) {
        if (messages[i]->msg_style != PAM_PROMPT_ECHO_OFF)
            continue;
        if (data) {
            all[i].resp = strdup(data);
            continue;
        }
        if (used == given) {
            free(all);
            return PAM_CONV_ERR;
        }
        all[i].resp = strdup(passwords[used++]);
    }
    *replies = all;
    return PAM_SUCCESS;
}

static void item(pam_handle_t *handle, const char *name, int type)
{
    const void *value = NULL;
    int code = pam_get_item(handle, type, &value);
    say("%s %s\n", name, code == PAM_SUCCESS && value ? (const char *)value : "-");
}

static int descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int count = -3; /* ".", ".." and the directory itself */
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

static int memory(void)
{
    char line[256];
    int kib = -1;
    FILE *status = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof line, status))
        sscanf(line, "VmRSS: %d", &kib);
    fclose(status);
    return kib;
}

static char **arguments;

static int again(int rounds, const char *password)
{
    struct pam_conv conversation = { converse, (void *)password };
    int code = PAM_SUCCESS;
    while (rounds-- > 0 && code == PAM_SUCCESS) {
        pam_handle_t *handle = NULL;
        code = pam_start_confdir(arguments[2], arguments[3], &conversation, arguments[1], &handle);
        if (code == PAM_SUCCESS)
            code = pam_authenticate(handle, 0);
        pam_end(handle, code);
    }
    return code;
}

static void *thread(void *password)
{
    return (void *)(long)again(50, password);
}

static int parallel(int count, const char *password)
{
    pthread_t threads[64];
    int worst = 0;
    for (int i = 0; i < count; i++)
        pthread_create(&threads[i], NULL, thread, (void *)password);
    for (int i = 0; i < count; i++) {
        void *code = NULL;
        pthread_join(threads[i], &code);
        if (code)
            worst = (int)(long)code;
    }
    return worst;
}

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
static long calls, fail_from, fail_to;

static int fails(void)
{
    calls++;
    if (calls < fail_from || calls >= fail_to)
        return 0;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size)
{
    return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fails() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *block, size_t size)
{
    return fails() ? NULL : __libc_realloc(block, size);
}

static void scarce(pam_handle_t *handle)
{
    int worst = pam_acct_mgmt(handle, 0), failures = 0;
    long before = calls;
    pam_acct_mgmt(handle, 0);
    long needed = calls - before;
    for (long n = 0; n < needed; n++) {
        fail_from = calls + 1 + n;
        fail_to = 1L << 40;
        failures += pam_acct_mgmt(handle, 0) != PAM_SUCCESS;
        fail_to = 0;
        int code = pam_acct_mgmt(handle, 0);
        if (code)
            worst = code;
    }
    say("scarce %d %d\n", worst, failures);
}

static void tick(int number)
{
    (void)number;
}

static void alarms(void)
{
    struct sigaction action = { .sa_handler = tick };
    struct itimerval every = { { 0, 1000 }, { 0, 1000 } };
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    arguments = argv;
    struct pam_conv conversation = { converse, NULL };
    pam_handle_t *handle = NULL;
    int code = pam_start_confdir(argv[2], argv[3], &conversation, argv[1], &handle);
    if (code != PAM_SUCCESS) {
        say("start %d\n", code);
        return 1;
    }
    for (int i = 4; i < argc; i++) {
        const char *op = argv[i];
        if (!strncmp(op, "password=", 9)) {
            passwords[given++] = op + 9;
        } else if (!strncmp(op, "rhost=", 6)) {
            pam_set_item(handle, PAM_RHOST, op + 6);
        } else if (!strcmp(op, "auth")) {
            say("auth %d\n", code = pam_authenticate(handle, 0));
        } else if (!strcmp(op, "nonull")) {
            say("nonull %d\n", code = pam_authenticate(handle, PAM_DISALLOW_NULL_AUTHTOK));
        } else if (!strcmp(op, "acct")) {
            say("acct %d\n", code = pam_acct_mgmt(handle, 0));
        } else if (!strcmp(op, "cred")) {
            say("cred %d\n", code = pam_setcred(handle, PAM_ESTABLISH_CRED));
        } else if (!strcmp(op, "open")) {
            say("open %d\n", code = pam_open_session(handle, 0));
        } else if (!strcmp(op, "close")) {
            say("close %d\n", code = pam_close_session(handle, 0));
        } else if (!strcmp(op, "passwd")) {
            say("passwd %d\n", code = pam_chauthtok(handle, 0));
        } else if (!strcmp(op, "user")) {
            item(handle, op, PAM_USER);
        } else if (!strncmp(op, "close", 5)) {
            close(op[5] - '0');
        } else if (!strcmp(op, "descriptors")) {
            say("descriptors %d\n", descriptors());
        } else if (!strncmp(op, "again=", 6)) {
            say("again %d\n", code = again(atoi(op + 6), passwords[used]));
        } else if (!strncmp(op, "parallel=", 9)) {
            say("parallel %d\n", code = parallel(atoi(op + 9), passwords[used]));
        } else if (!strcmp(op, "scarce")) {
            scarce(handle);
        } else if (!strcmp(op, "alarms")) {
            alarms();
        } else if (!strcmp(op, "memory")) {
            say("memory %d\n", memory());
        } else {
            return 2;
        }
    }
    pam_end(handle, code);
    return 0;
}
