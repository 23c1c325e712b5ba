/* Preloaded into ganesha.nfsd: it ends at its start when it cannot register NFSv3 with rpcbind, which we do
 * not run, for that listens on every address of the machine. svc_reg() without a netconfig does everything
 * but the registration.
 *
 * It also asks the resolver about its own address, and only for families that the machine has addresses of:
 * where there is none but the loopback one, that answers nothing even for an address in digits. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdint.h>

typedef bool (*register_function)(void*, uint32_t, uint32_t, void*, const void*);

bool svc_reg(void* transport, uint32_t program, uint32_t version, void* dispatch, const void* netconfig) {
  (void)netconfig;
  register_function real = (register_function)dlsym(RTLD_NEXT, "svc_reg");
  return real(transport, program, version, dispatch, (const void*)0);
}

typedef int (*lookup_function)(const char*, const char*, const struct addrinfo*, struct addrinfo**);

int getaddrinfo(const char* host, const char* service, const struct addrinfo* hints, struct addrinfo** found) {
  lookup_function real = (lookup_function)dlsym(RTLD_NEXT, "getaddrinfo");
  if (!hints) return real(host, service, hints, found);
  struct addrinfo any = *hints;
  any.ai_flags &= ~AI_ADDRCONFIG;
  return real(host, service, &any, found);
}

bool rpcb_set(uint32_t program, uint32_t version, const void* netconfig, const void* address) {
  (void)program;
  (void)version;
  (void)netconfig;
  (void)address;
  return true;
}

bool rpcb_unset(uint32_t program, uint32_t version, const void* netconfig) {
  (void)program;
  (void)version;
  (void)netconfig;
  return true;
}
