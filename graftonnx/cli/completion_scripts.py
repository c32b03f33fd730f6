"""What a shell runs at a press of Tab.

The protocol is click's: `_GRAFTONNX_COMPLETE=SHELL_complete`, `COMP_WORDS` and `COMP_CWORD` in the
environment, one answer a line. The scripts are ours, because click's lose the part in front of `=` in
`--option=value`, and in fish all of a description behind its first comma.
"""

from __future__ import annotations

BASH = """\
_graftonnx_completion() {
    local IFS=$'\\n' word response type value
    local -a words
    for word in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        if [[ ${#words[@]} -gt 0 && ${words[-1]} == --* && ( $word == = || ${words[-1]} == *= ) ]]; then
            words[-1]+=$word
        else
            words+=("$word")
        fi
    done
    response=$(env _GRAFTONNX_COMPLETE=bash_complete \\
        COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) "$1")
    COMPREPLY=()
    for word in $response; do
        IFS=',' read -r type value <<< "$word"
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done
}
complete -o nosort -F _graftonnx_completion graftonnx
"""
"""bash cuts words at `=`: they are put together again."""

ZSH = """\
#compdef graftonnx
_graftonnx_completion() {
    local -a plain described response
    local type key descr
    (( $+commands[graftonnx] )) || return 1
    response=("${(@f)$(env _GRAFTONNX_COMPLETE=zsh_complete \\
        COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) graftonnx)}")
    [[ $PREFIX == --*=* ]] && compset -P '*='
    for type key descr in $response; do
        case $type in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            plain) if [[ $descr == _ ]]; then plain+=("$key"); else described+=("$key:$descr"); fi ;;
        esac
    done
    (( $#described )) && _describe -V unsorted described
    (( $#plain )) && compadd -V unsorted -a plain
    (( compstate[nmatches] ))
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _graftonnx_completion "$@"
else
    compdef _graftonnx_completion graftonnx
fi
"""
"""Evaluated after compinit, or a file `_graftonnx` in a folder of `$fpath`."""

FISH = """\
function _graftonnx_completion
    set -l word (commandline -ct)
    set -l option (string match --regex -- '^--[^=]*=' $word)
    set -l value (string replace -- "$option" '' $word)
    set -lx _GRAFTONNX_COMPLETE fish_complete
    set -lx COMP_WORDS (commandline -cp | string collect)
    set -lx COMP_CWORD (string collect -- $word)
    for answer in (graftonnx)
        set -l parts (string split --max 1 -- , $answer)
        switch $parts[1]
            case dir
                __fish_complete_directories $value '' | string replace --regex -- '^' "$option"
            case file
                __fish_complete_path $value | string replace --regex -- '^' "$option"
            case plain
                printf '%s%s\\n' "$option" $parts[2]
        end
    end
end
complete --no-files --keep-order --command graftonnx --arguments '(_graftonnx_completion)'
"""
"""fish replaces the whole word: what stands in front of `=` is given back with each answer."""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
