"""How bash takes what Tab offers; zsh and fish take it as click gives it. Imported when a shell asks."""

import os

from click.shell_completion import BashComplete, add_completion_class, split_arg_string

# Bash takes what stands before the last = or : of a word for other words, and would put a blank behind a key
BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' line=${COMP_LINE:0:COMP_POINT} word before kind offer
    word=${line##*[[:space:]]}
    before=${word%%"${word##*[=:]}"}
    COMPREPLY=()
    while IFS=, read -r kind offer; do
        case $kind in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("${offer#"$before"}") ;;
        esac
    done < <(env COMP_WORDS="$line" %(complete_var)s=bash_complete "$1")
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then compopt -o nospace; fi
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


@add_completion_class
class Bash(BashComplete):
    """Looks at the line as it was typed."""

    source_template = BASH

    @staticmethod
    def _check_version() -> None:
        """Every bash with `compopt` does."""

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)
        incomplete = "" if line[-1:].isspace() else words.pop()
        return words[1:], incomplete
