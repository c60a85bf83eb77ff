/* Leads what packetdrill asks libc about a socket to the object under test.
 *
 * packetdrill makes a script's socket calls through the object's table, but its code blocks call libc's getsockopt() on the live
 * descriptor. This library is preloaded, so that the call comes here, and given as --so_filename: it loads the object that
 * $PD_REAL_SO names, lets it fill in packetdrill's table, and keeps that. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "packetdrill.h"

static struct packetdrill_interface *table;

/* Programs that packetdrill starts are not to load this. */
__attribute__((constructor)) static void forget_preload(void)
{
	unsetenv("LD_PRELOAD");
}

void packetdrill_interface_init(const char *flags, struct packetdrill_interface *out)
{
	const char *path = getenv("PD_REAL_SO");
	void *object = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) : NULL;
	packetdrill_interface_init_t fill_in =
		object ? (packetdrill_interface_init_t)dlsym(object, "packetdrill_interface_init") : NULL;

	if (!fill_in) {
		fprintf(stderr, "cannot load $PD_REAL_SO: %s\n", path ? dlerror() : "it is not set");
		exit(3);
	}
	fill_in(flags, out);
	table = out;
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
	if (table && table->getsockopt)
		return table->getsockopt(table->userdata, fd, level, name, value, len);
	return syscall(SYS_getsockopt, fd, level, name, value, len);
}
