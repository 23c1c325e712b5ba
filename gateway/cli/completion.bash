# bash completion for diskferry: commands, options (asked from the program itself), words and file names.
_diskferry() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} at candidate takes_value=''
  local -a command=()
  # bash splits at '=': in `--compress=z` the words are `--compress`, `=` and `z`.
  [[ $word == = ]] && word=''
  [[ $before == = ]] && before=${COMP_WORDS[COMP_CWORD - 2]}
  for ((at = 1; at < COMP_CWORD; ++at)); do
    candidate=${COMP_WORDS[at]}
    if [[ -n $takes_value ]]; then
      [[ $candidate == = ]] || takes_value=''
    elif [[ $candidate == --log-level || $candidate == --log-format ]]; then
      takes_value=yes
    elif [[ $candidate != -* ]]; then
      command+=("$candidate")
      [[ ($candidate == plan || $candidate == pki || $candidate == exports) && ${#command[@]} == 1 ]] || break
    fi
  done
  COMPREPLY=()
  local words=''
  case $before in
    --progress) words="auto bar json none" ;;
    --key-type) words="rsa ec" ;;
    --tls) words="off on require" ;;
    --preallocate) words="off metadata full" ;;
    --verify) words="cache storage none" ;;
    --compress) [[ ${COMP_WORDS[COMP_CWORD]} == = || ${COMP_WORDS[COMP_CWORD - 1]} == = ]] && words="zlib zstd" ;;
    --log-level) words="error warn info debug trace" ;;
    --log-format) words="text json" ;;
    -f | -O | -F | --source-format | --target-format | --other-format | --backing-format) words="raw qcow2" ;;
  esac
  if [[ -n $words ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    return
  fi
  if [[ ${#command[@]} == 0 ]]; then
    words=$("${COMP_WORDS[0]}" --help 2>/dev/null | sed -n '/^Subcommands:/,$s/^  \([a-z][a-z-]*\) .*/\1/p')
    mapfile -t COMPREPLY < <(compgen -W "$words --help --version --log-level --log-format" -- "$word")
  elif [[ ${#command[@]} == 1 && ${command[0]} == plan ]]; then
    mapfile -t COMPREPLY < <(compgen -W "copy --help" -- "$word")
  elif [[ ${#command[@]} == 1 && ${command[0]} == pki ]]; then
    mapfile -t COMPREPLY < <(compgen -W "init host show renew --help" -- "$word")
  elif [[ ${#command[@]} == 1 && ${command[0]} == exports && $word != -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "list add remove" -- "$word")
  elif [[ ${#command[@]} == 2 && ${command[*]} == "exports remove" && $word != -* ]]; then
    words=$("${COMP_WORDS[0]}" exports --json 2>/dev/null | sed -n 's/^ *"name": "\(.*\)",*$/\1/p')
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
  elif [[ " status watch set pause resume cancel commit fallback " == *" ${command[0]} "* && $word != -* ]]; then
    words=$("${COMP_WORDS[0]}" jobs 2>/dev/null | sed '1d; s/ .*//')
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
  elif [[ $word == -* ]]; then
    words=$("${COMP_WORDS[0]}" "${command[@]}" --help 2>/dev/null | grep -oE '(^|[ ,])--?[a-zA-Z][a-z-]*' | tr -d ' ,')
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
  else
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
    compopt -o filenames 2>/dev/null
  fi
}
complete -F _diskferry diskferry
