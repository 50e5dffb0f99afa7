/* Preloaded into a server, takes its time to look up slow.test, and slower.test for ever. What else it
   looks up it writes into the file that LOOKUPS names, a line each. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int lookup(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    if (name && strcmp(name, "slow.test") == 0) {
        sleep(4);
        return EAI_NONAME;
    }
    while (name && strcmp(name, "slower.test") == 0)
        pause();
    const char *path = getenv("LOOKUPS");
    FILE *lookups = path ? fopen(path, "a") : NULL;
    if (lookups) {
        fprintf(lookups, "%s\n", name ? name : "");
        fclose(lookups);
    }
    return ((lookup *)dlsym(RTLD_NEXT, "getaddrinfo"))(name, service, hints, found);
}
