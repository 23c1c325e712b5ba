// The diskferry program. Everything is in command_line.cpp, where tests reach it.
#include "gateway/cli/command.hpp"

#include <iostream>

int main(int argument_count, char** arguments) {
  return diskferry::cli::run_command_line(argument_count, arguments, std::cout, std::cerr);
}
