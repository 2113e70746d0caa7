"""Tab completion for bash, which needs more than click has; zsh and fish do not. Imported when a shell asks for it."""

import os

from click.shell_completion import BashComplete, add_completion_class, split_arg_string

# Bash treats the part of a word before its last = or : as another word, and would add a space after a key
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
    """Reads the words from the line as the user typed it."""

    source_template = BASH

    @staticmethod
    def _check_version() -> None:
        """Check nothing: every bash that has `compopt` will do, also versions that click refuses."""

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)
        incomplete = "" if line[-1:].isspace() else words.pop()
        return words[1:], incomplete
