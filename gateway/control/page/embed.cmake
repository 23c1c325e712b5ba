# Writes page_files.cpp: the files of the page as texts of the program. Called by CMakeLists.txt at build time,
# with FROM (the folder of the files) and TO.
set(files
    "|text/html|page.html"
    "page.css|text/css|page.css"
    "page.js|text/javascript|page.js"
    "figures.js|text/javascript|figures.js"
    "plot.js|text/javascript|plot.js"
    "icon.svg|image/svg+xml|icon.svg")
set(text "// Made by embed.cmake; change the files beside it.\n#include \"gateway/control/page/page_files.hpp\"\n\n"
         "namespace diskferry::control {\nconst std::array<PageFile, page_file_count> page_files{{\n")
string(CONCAT text ${text})
foreach(file IN LISTS files)
  string(REGEX MATCH "^([^|]*)\\|([^|]*)\\|(.*)$" ignored "${file}")
  set(name "${CMAKE_MATCH_1}")
  set(type "${CMAKE_MATCH_2}")
  file(READ "${FROM}/${CMAKE_MATCH_3}" content)
  if(type MATCHES "^text/")
    string(APPEND type "; charset=utf-8")
  endif()
  string(FIND "${content}" ")page_\"" ends)
  if(NOT ends EQUAL -1)
    message(FATAL_ERROR "${CMAKE_MATCH_3} holds the end of a raw string")
  endif()
  string(APPEND text "    {\"${name}\", \"${type}\", R\"page_(${content})page_\"},\n")
endforeach()
string(APPEND text "}};\n}  // namespace diskferry::control\n")
file(WRITE "${TO}" "${text}")
