# shellcheck shell=bash
# Completion of iscsictl(8) and iscsid(8) for bash. It needs nothing but bash and
# the programs: nicknames come from iscsi.conf(5), sessions from the daemon.

# _iscsi_line splits what is typed up to the cursor into words, of which the last,
# perhaps empty, is cur. bash itself takes names and addresses apart at colons.
_iscsi_line() {
	local line=${COMP_LINE:0:COMP_POINT}
	read -ra words <<<"$line"
	cur=
	if [[ $line == *[![:space:]] ]]; then
		cur=${words[-1]}
		unset 'words[-1]'
	fi
}

# _iscsi_reply PREFIX CANDIDATE... offers those candidates, each after the prefix,
# that begin with what is typed. What stands before the word's last break, such as
# a colon, is left out, as readline keeps it. Names may come from targets that are
# not trusted, so what means something to the shell is quoted.
_iscsi_reply() {
	local prefix=$1 kept=$cur candidate
	while [[ -n $kept && $COMP_WORDBREAKS != *"${kept: -1}"* ]]; do kept=${kept%?}; done
	shift
	for candidate; do
		candidate=$prefix$candidate
		if [[ $candidate != "$cur"* ]]; then continue; fi
		candidate=${candidate#"$kept"}
		if [[ -z $files && $candidate == *[!][A-Za-z0-9._/:=,+-]* ]]; then printf -v candidate %q "$candidate"; fi
		COMPREPLY+=("$candidate")
	done
}

# _iscsi_files KIND PREFIX offers files (-f) or directories (-d).
_iscsi_files() {
	local name files=yes # readline quotes them
	compopt -o filenames 2>/dev/null
	while IFS= read -r name; do _iscsi_reply "$2" "$name"; done < <(compgen "$1" -- "${cur#"$2"}")
}

_iscsi_nospace() { compopt -o nospace 2>/dev/null; }

# _iscsi_ask runs the program that is being completed, with its --socket.
_iscsi_ask() {
	local i socket=()
	for i in "${!words[@]}"; do
		case ${words[i]} in
		--socket=*) socket=("${words[i]}") ;;
		--socket) if [[ -n ${words[i + 1]} ]]; then socket=(--socket "${words[i + 1]}"); fi ;;
		esac
	done
	timeout 5 "${words[0]/#\~/$HOME}" "${socket[@]}" "$@" 2>/dev/null
}

# _iscsi_sessions EXPRESSION lists what matches in the listing of sessions, without
# the name before it and the quotes.
_iscsi_sessions() {
	_iscsi_ask --libxo=json -Lv | grep -oE "$1" | sed -E 's/.*": *"?([^"]*)"?$/\1/' | sort -u
}

# _iscsi_nicknames lists those of the configuration file.
_iscsi_nicknames() {
	local i file=/etc/iscsi.conf
	for i in "${!words[@]}"; do
		case ${words[i]} in
		-c | -[!-]*c) file=${words[i + 1]} ;;
		-c?*) file=${words[i]#-c} ;;
		-[!-]*c/*) file=/${words[i]#*c/} ;;
		esac
	done
	# Without comments and values, a nickname is what stands before a brace.
	sed -E -e 's/^(([^"#]|"[^"]*")*)#.*/\1/' -e 's/=[[:space:]]*"[^"]*"//g' "${file/#\~/$HOME}" 2>/dev/null | tr '\n' ' ' |
		grep -oE '("[^"]+"|[][A-Za-z0-9._/:-]+)[[:space:]]*\{' | sed -E 's/[[:space:]]*\{$//; s/"//g'
}

# _iscsictl_value OPTION PREFIX offers values of an option.
_iscsictl_value() {
	local list=()
	case $1 in
	-n) mapfile -t list < <(_iscsi_nicknames) ;;
	-i) mapfile -t list < <(_iscsi_sessions '"sessionId": *"?[0-9]+') ;;
	-t) mapfile -t list < <(_iscsi_sessions '"target": *\{[[:space:]]*"name": *"[^"]*"') ;;
	-p)
		mapfile -t list < <(_iscsi_sessions '"target": *\{[[:space:]]*"name": *"[^"]*", *"portal": *"[^"]*"|"configuredPortal": *"[^"]*"')
		;;
	-e) list=(on off) ;;
	-w) list=(10 30 60) ;;
	-d | --discover) mapfile -t list < <(compgen -A hostname) ;;
	-c | --socket | --secret-file) _iscsi_files -f "$2" ;;
	--import-open-iscsi) _iscsi_files -d "$2" ;;
	--device) mapfile -t list < <(compgen -G '/sys/block/ublkb*'; compgen -G '/sys/block/nbd*') && list=("${list[@]##*/}") ;;
	--libxo) list=(text json xml html json,pretty xml,pretty html,pretty) ;;
	--sysctl)
		mapfile -t list < <(_iscsi_ask --sysctl | sed 's/: .*/=/')
		_iscsi_nospace
		;;
	esac
	_iscsi_reply "$2" "${list[@]}"
}

_iscsictl() {
	local cur words word action='' last='' options files=''
	COMPREPLY=()
	_iscsi_line
	for word in "${words[@]:1}"; do
		case $word in
		--discover | --rescan | --sysctl | --import-open-iscsi) action=$word ;;
		--discover=* | --sysctl=* | --import-open-iscsi=*) action=${word%%=*} ;;
		-*A* | -*M* | -*R* | -*L*) if [[ $word != --* && -z $action ]]; then action=-${word//[!AMRL]/}; fi ;;
		esac
		last=$word
	done
	# The argument of the option before.
	case $last in
	--*=*) ;;
	--device | --discover | --import-open-iscsi | --libxo | --secret-file | --socket | --sysctl)
		if [[ $cur != -* ]]; then _iscsictl_value "$last" ''; fi
		if [[ $last != --sysctl && $last != --import-open-iscsi || ${#COMPREPLY[@]} -gt 0 ]]; then return; fi
		;;
	--*) ;;
	-*[cdeinpstuw]) _iscsictl_value "-${last: -1}" '' && return ;;
	esac
	case $cur in
	--*=*) _iscsictl_value "${cur%%=*}" "${cur%%=*}=" && return ;;
	esac
	case $action in
	-A*) options='-a -c -d -e -n -p -r -s -t -u -w --secret-file' ;;
	-M*) options='-c -e -i -n -p -s -t -u --secret-file' ;;
	-R*) options='-a -c -n -p -t --device --force' ;;
	-L*) options='-v -w --libxo=' ;;
	--discover) options='-r -s -u --secret-file --libxo=' ;;
	--rescan) options=-i ;;
	--sysctl) options='--sysctl --libxo=' ;;
	--import-open-iscsi) options= ;;
	*)
		options='-A -M -R -L -a -c -d -e -i -n -p -r -s -t -u -v -w --device --discover --force --help --import-open-iscsi
			--libxo= --rescan --secret-file --sysctl --version'
		;;
	esac
	for word in $options --socket; do
		if [[ $word == --sysctl || " ${words[*]} " != *" $word "* ]]; then _iscsi_reply '' "$word"; fi
	done
	if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then _iscsi_nospace; fi
}

_iscsid() {
	local cur words word files=''
	COMPREPLY=()
	_iscsi_line
	case ${words[-1]} in
	-P | --socket) _iscsi_files -f '' && return ;;
	--run | --state) _iscsi_files -d '' && return ;;
	-l) _iscsi_reply '' 0 1 2 3 && return ;;
	-m | -t) return ;;
	-o)
		case $cur in
		device=*) _iscsi_reply device= ublk nbd loop socket ;;
		discard=*) while read -r word; do _iscsi_reply discard= "${word##*/}"; done < <(compgen -G '/sys/block/ublkb*') ;;
		*=*) ;;
		*)
			_iscsi_nospace
			_iscsi_reply '' device= discard=
			# The complaint of a name that is none has those that are.
			while read -r word; do _iscsi_reply '' "$word="; done < <(
				timeout 5 "${words[0]/#\~/$HOME}" -d -o none= 2>&1 | grep -oE 'kern\.[a-z]+\.[a-z_]+'
			)
			;;
		esac
		return
		;;
	esac
	case $cur in
	--socket=*) _iscsi_files -f --socket= ;;
	--run=* | --state=*) _iscsi_files -d "${cur%%=*}=" ;;
	*) _iscsi_reply '' -P -d -l -m -o -t --help --run --socket --state --version ;;
	esac
}

complete -F _iscsictl iscsictl
complete -F _iscsid iscsid
