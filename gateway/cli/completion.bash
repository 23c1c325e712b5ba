# bash completion for diskferry: commands, options (asked from the program itself), and file names.
_diskferry() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command='' candidate
  for candidate in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    [[ $candidate == -* ]] || { command=$candidate; break; }
  done
  COMPREPLY=()
  if [[ -z $command ]]; then
    local commands
    commands=$("${COMP_WORDS[0]}" --help 2>/dev/null | sed -n '/^Subcommands:/,$s/^  \([a-z][a-z-]*\) .*/\1/p')
    mapfile -t COMPREPLY < <(compgen -W "$commands --help --version --log-level --log-format" -- "$word")
    return
  fi
  case $before in
    --progress) mapfile -t COMPREPLY < <(compgen -W "auto bar json none" -- "$word"); return ;;
    --tls) mapfile -t COMPREPLY < <(compgen -W "off on require" -- "$word"); return ;;
    --preallocate) mapfile -t COMPREPLY < <(compgen -W "off metadata full" -- "$word"); return ;;
    --log-level) mapfile -t COMPREPLY < <(compgen -W "error warn info debug trace" -- "$word"); return ;;
    --log-format) mapfile -t COMPREPLY < <(compgen -W "text json" -- "$word"); return ;;
    -f|-O|--source-format|--target-format) mapfile -t COMPREPLY < <(compgen -W "raw qcow2" -- "$word"); return ;;
  esac
  if [[ $word == -* ]]; then
    local options
    options=$("${COMP_WORDS[0]}" "$command" --help 2>/dev/null | grep -oE '(^|[ ,])--?[a-zA-Z][a-z-]*' | tr -d ' ,')
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
  else
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
    compopt -o filenames 2>/dev/null
  fi
}
complete -F _diskferry diskferry
