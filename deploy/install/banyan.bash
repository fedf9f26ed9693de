# Completion for bash: options, their words, and the commands of `banyan`, read from --help at the moment they are asked for,
# so that it is never stale.
_banyan() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} text words
    local -a program=("${COMP_WORDS[0]}")
    if [ "${COMP_WORDS[0]##*/}" = banyan ]; then
        if [ "$COMP_CWORD" = 1 ]; then
            words=$("${program[@]}" --help 2>/dev/null | sed -n '/^commands:/,/^$/s/^    \([a-z-]*\) .*/\1/p')
            mapfile -t COMPREPLY < <(compgen -W "$words --help --man --version" -- "$current")
            return
        fi
        program+=("${COMP_WORDS[1]}")
        if [ "${COMP_WORDS[1]}" = help ]; then
            program=("${COMP_WORDS[0]}")
        elif [ "$COMP_CWORD" -gt 2 ] && [[ ${COMP_WORDS[1]} = bench || ${COMP_WORDS[1]} = config ]]; then
            program+=("${COMP_WORDS[2]}") # these two have commands of their own
        fi
    fi
    text=$("${program[@]}" --help 2>/dev/null)
    words=$(sed -n "s/^    banyan ${COMP_WORDS[1]} \\([a-z-]*\\) .*/\\1/p" <<<"$text")
    [ "${COMP_WORDS[1]}" != help ] || words=$(sed -n '/^commands:/,/^$/s/^    \([a-z-]*\) .*/\1/p' <<<"$text")
    if [ "$COMP_CWORD" = 2 ] && [ -n "$words" ]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
        return
    fi
    if [[ $current == -* ]]; then
        words=$(sed -n 's/^  \(--[a-z0-9-]*\).*/\1/p' <<<"$text")
        mapfile -t COMPREPLY < <(compgen -W "$words --help --man --version" -- "$current")
        return
    fi
    # The words of a choice stand in its help as (one|two|three; default: one).
    words=$(awk -v flag="$previous" '$1 == flag && $2 == "WORD" { on = 1 } on && /^  --/ && $1 != flag { exit }
        on && match($0, /\([a-z0-9|_-]+;/) { print substr($0, RSTART + 1, RLENGTH - 2); exit }' <<<"$text")
    if [ -n "$words" ]; then
        mapfile -t COMPREPLY < <(compgen -W "${words//|/ }" -- "$current")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
}
complete -o filenames -F _banyan banyan banyan-router banyan-tokenizer-worker banyan-scheduler banyan-gpu-worker banyan-detokenizer
