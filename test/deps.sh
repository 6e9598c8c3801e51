#!/usr/bin/env bash
# Installs what the tests use and this machine lacks: the compiler that the race
# detector needs, and other people's programs as peers. As root on Debian it asks
# nobody; elsewhere it says what is missing, and the tests that need it will be
# skipped, each with its reason.
set -euo pipefail

# One line for each program: the program, and Debian's package of it.
programs='
gcc         gcc
ld          binutils
git         git
tgtd        tgt
tgtadm      tgt
fio         fio
qemu-img    qemu-utils
qemu-io     qemu-utils
nbdinfo     libnbd-bin
nbdcopy     libnbd-bin
tshark      tshark
mandoc      mandoc
iscsi-perf  libiscsi-bin
mkfs.ext4   e2fsprogs
mkfs.xfs    xfsprogs
strace      strace
modprobe    kmod
ip          iproute2
ps          procps
losetup     util-linux
mount       mount
file        file
lintian     lintian
'
PATH=$PATH:/usr/sbin:/sbin

missing() {
	while read -r program package; do
		if [ -n "$program" ] && ! command -v "$program" >/dev/null; then
			echo "$package"
		fi
	done <<<"$programs"
	# gcc alone compiles nothing that has a header, and qemu-img has no iSCSI.
	if ! [ -e /usr/include/stdio.h ]; then echo libc6-dev; fi
	if ! [ -e /usr/include/iscsi/iscsi.h ]; then echo libiscsi-dev; fi
	if ! compgen -G '/usr/lib/*/qemu/block-iscsi.so' >/dev/null; then echo qemu-block-extra; fi
}

if ! command -v go >/dev/null; then
	echo "deps: there is no go on the path; install Go 1.26 or newer (https://go.dev/dl/)" >&2
	exit 1
fi
mapfile -t packages < <(missing | sort -u)
if [ ${#packages[@]} -eq 0 ]; then
	exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "deps: missing here: ${packages[*]}" >&2
	echo "deps: tests that need them will be skipped; on Debian: sudo make deps" >&2
	exit 0
fi

export DEBIAN_FRONTEND=noninteractive
echo "deps: installing ${packages[*]}"
# tshark would ask whether everybody may capture: no, as is its default.
if command -v debconf-set-selections >/dev/null; then
	echo 'wireshark-common wireshark-common/install-setuid boolean false' | debconf-set-selections
fi
# The daemons among the packages are started by the tests that use them, each on
# a port of its own: none is to be started by its installation.
policy=/usr/sbin/policy-rc.d
if ! [ -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 0755 "$policy"
	trap 'rm -f "$policy"' EXIT
fi
apt() {
	apt-get -q -y -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120 "$@" </dev/null
}
apt update >/dev/null || echo "deps: apt-get update failed; going on with what is known" >&2
log=$(mktemp)
if ! apt install --no-install-recommends "${packages[@]}" >"$log" 2>&1; then
	cat "$log" >&2
	rm -f "$log"
	echo "deps: apt-get could not install ${packages[*]}" >&2
	exit 1
fi
rm -f "$log"
mapfile -t packages < <(missing | sort -u)
if [ ${#packages[@]} -ne 0 ]; then
	echo "deps: still missing after the installation: ${packages[*]}" >&2
	exit 1
fi
