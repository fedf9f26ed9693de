# What is made while installing, because it depends on the programs or on the prefix:
#   manual pages    each program writes its own (--man), the commands of `banyan` too
#   units           with this prefix's paths in them
#   banyan.yaml     in /etc/banyan for the prefix /usr, else below the prefix; one that is there stays
# Given: BANYAN_BIN (the built programs), BANYAN_SOURCE.
set(root "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}")
set(etc "${CMAKE_INSTALL_PREFIX}/etc/banyan")
if(CMAKE_INSTALL_PREFIX STREQUAL "/usr")
  set(etc "/etc/banyan")
endif()

function(man_page page)
  execute_process(COMMAND ${ARGN} --man OUTPUT_VARIABLE text ERROR_QUIET)
  if(text MATCHES "^\\.TH ") # `banyan bench` is a list of commands, and has none
    file(WRITE "${root}/share/man/man1/${page}.1" "${text}")
  endif()
endfunction()

file(GLOB programs RELATIVE ${BANYAN_BIN} ${BANYAN_BIN}/banyan*)
foreach(program ${programs})
  man_page(${program} ${BANYAN_BIN}/${program})
endforeach()
execute_process(COMMAND ${BANYAN_BIN}/banyan --help OUTPUT_VARIABLE help)
string(REGEX REPLACE "^.*commands:\n" "" help "${help}")
string(REGEX MATCHALL "    [a-z-]+" commands "${help}")
foreach(command ${commands})
  string(STRIP ${command} command)
  man_page(banyan-${command} ${BANYAN_BIN}/banyan ${command})
endforeach()

file(GLOB_RECURSE units RELATIVE ${BANYAN_SOURCE}/deploy/systemd ${BANYAN_SOURCE}/deploy/systemd/*)
foreach(unit ${units})
  file(READ ${BANYAN_SOURCE}/deploy/systemd/${unit} text)
  string(REGEX REPLACE "(ExecStart=|exec )banyan" "\\1${CMAKE_INSTALL_PREFIX}/bin/banyan" text "${text}")
  string(REPLACE "/etc/banyan" "${etc}" text "${text}")
  if(unit MATCHES "sysusers")
    file(WRITE "${root}/lib/sysusers.d/banyan.conf" "${text}")
  else()
    file(WRITE "${root}/lib/systemd/system/${unit}" "${text}")
  endif()
endforeach()

if(NOT EXISTS "$ENV{DESTDIR}${etc}/banyan.yaml")
  file(COPY ${BANYAN_SOURCE}/deploy/conf/banyan.yaml DESTINATION "$ENV{DESTDIR}${etc}")
endif()
