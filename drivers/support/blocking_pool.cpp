// Keeps the header honest: it compiles alone.
#include "drivers/support/blocking_pool.hpp"
