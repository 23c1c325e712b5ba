/* Preloaded into glusterd: each of its starts runs geo-replication's Python program a dozen times (1 to 4 s),
 * to write a configuration that nobody here reads. When the program is not there, glusterd does without. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <spawn.h>
#include <string.h>

typedef int (*spawn_function)(pid_t*, const char*, const posix_spawn_file_actions_t*,
                              const posix_spawnattr_t*, char* const[], char* const[]);

int posix_spawnp(pid_t* pid, const char* file, const posix_spawn_file_actions_t* actions,
                 const posix_spawnattr_t* attributes, char* const arguments[], char* const environment[]) {
  const char* name = strrchr(file, '/');
  if (name != NULL && strcmp(name, "/gsyncd") == 0) {
    errno = ENOENT;  // glusterd looks here, too
    return ENOENT;
  }
  spawn_function real = (spawn_function)dlsym(RTLD_NEXT, "posix_spawnp");
  return real(pid, file, actions, attributes, arguments, environment);
}
