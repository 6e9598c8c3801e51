#!/usr/bin/env bash
# vm.sh runs a command as root in a throw-away virtual machine: a real Debian
# kernel, the host's file system read-only with memory on top, and no network
# but its own. The processor is emulated, so that no KVM is needed: VM_ACCEL=kvm
# takes KVM, with which all is much faster.
#
#   vm.sh [options] -- COMMAND [ARGUMENT...]
#     --kernel K    6.12 (the default), 6.1, or an exact release that apt has
#     --siw         with the software iWARP driver
#     --mem MB      memory (4096)
#     --smp N       processors (2)
#     --net         a network card, on which the host's loopback is 10.0.2.2
#     --timeout S   the guest is ended after so many seconds (300)
#     --rw DIR      a directory that the guest may write to, at its own path;
#                   repeatable, and needed for what is below /tmp and /run
#     --cd DIR      where the command starts (here)
#     --env N[=V]   an environment variable to pass on; repeatable
#     --keep DIR    leaves console.log (the kernel's), dmesg and times there
#     -v            says what the times were
#
# The exit status is the command's; 124: it took too long; 125: the guest did
# not get to run it or to finish it. VM_CACHE is where prep.sh keeps its cache.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export VM_CACHE=${VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/iscsictl-vm}

kernel=6.12 mem=4096 smp=2 limit=300 cd=$PWD keep='' verbose='' prep=() rw=() env=() net=(-nic none)
while [ $# -gt 0 ]; do
	case $1 in
	--kernel) kernel=$2 && shift 2 ;;
	--siw) prep=(--siw) && shift ;;
	--mem) mem=$2 && shift 2 ;;
	--smp) smp=$2 && shift 2 ;;
	--net) net=(-netdev user,id=host,ipv6=off -device virtio-net-pci,netdev=host) && shift ;;
	--timeout) limit=$2 && shift 2 ;;
	--rw) rw+=("$(realpath "$2")") && shift 2 ;;
	--cd) cd=$2 && shift 2 ;;
	--env) env+=("$2") && shift 2 ;;
	--keep) keep=$2 && shift 2 ;;
	-v) verbose=yes && shift ;;
	--) shift && break ;;
	*) echo "vm.sh: unknown option $1" >&2 && exit 2 ;;
	esac
done
if [ $# -eq 0 ]; then
	echo "usage: vm.sh [options] -- COMMAND [ARGUMENT...]" >&2
	exit 2
fi

release=$("$here/prep.sh" --kernel "$kernel" ${prep[@]+"${prep[@]}"}) || exit 125
dir=$VM_CACHE/kernels/$release

run=$(mktemp -d "${TMPDIR:-/tmp}/iscsictl-vm.XXXXXX")
qemu=
cleanup() {
	if [ -n "$qemu" ]; then kill "$qemu" 2>/dev/null; fi
	if [ -n "$keep" ]; then
		mkdir -p "$keep"
		cp "$run"/{console.log,dmesg,times} "$keep/" 2>/dev/null
	fi
	rm -rf "$run"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# share adds a directory of the host: tag, path, ro or rw.
shares=()
share() {
	local mode=
	if [ "$3" = ro ]; then mode=,readonly=on; fi
	shares+=(-fsdev "local,id=$1,path=$2,security_model=passthrough,multidevs=remap$mode"
		-device "virtio-9p-pci,fsdev=$1,mount_tag=$1")
}
share root / ro
share cache "$VM_CACHE" ro
share run "$run" rw
: >"$run/shares"
for d in ${rw[@]+"${rw[@]}"}; do
	tag=rw$((${#shares[@]} / 4))
	share "$tag" "$d" rw
	echo "$tag $d" >>"$run/shares"
done

cp -r "$here/guest" "$run/guest"
{
	echo 'export VM_GUEST=/run/vm/guest'
	for e in ${env[@]+"${env[@]}"}; do
		case $e in
		*=*) printf 'export %s=%q\n' "${e%%=*}" "${e#*=}" ;;
		*) printf 'export %s=%q\n' "$e" "${!e-}" ;;
		esac
	done
	printf 'cd %q 2>/dev/null || cd /\n' "$cd"
	if [ $# -eq 1 ]; then
		printf '%s\n' "$1"
	else
		printf 'exec'
		printf ' %q' "$@"
		echo
	fi
} >"$run/command"

case ${VM_ACCEL:-tcg} in
kvm) accel=(-accel kvm -cpu host) ;;
*) accel=(-accel tcg,thread=multi,tb-size=512 -cpu max,-erms,-fsrm) ;;
esac

# launch starts the guest in the background. The virtio console is for the
# command's output alone.
launch() {
	timeout -k 5 "$limit" qemu-system-x86_64 "${accel[@]}" \
		-M q35,smbus=off,sata=off,usb=off,vmport=off -vga none -smp "$smp" -m "$mem" \
		-nodefaults -no-user-config -no-reboot -display none "${net[@]}" \
		-kernel "$dir/boot/vmlinuz-$release" -initrd "$dir/initrd.img" \
		-append "console=ttyS0 quiet loglevel=4 oops=panic panic=-1 mitigations=off tsc=reliable nowatchdog \
random.trust_cpu=on audit=0 selinux=0 apparmor=0 rcupdate.rcu_expedited=1 no_timer_check" \
		-chardev file,id=kernel,path="$run/console.log" -serial chardev:kernel \
		-chardev stdio,id=out,signal=off -device virtio-serial-pci -device virtconsole,chardev=out \
		-device virtio-rng-pci "${shares[@]}" </dev/null &
	qemu=$!
}

# up waits until the guest has got to the command, or has ended before. An
# emulated processor on a busy host can lose a timer while the kernel boots, and
# then nothing happens any more.
up() {
	local i
	for ((i = 0; i < 180; i++)); do
		if [ -s "$run/times" ] || ! kill -0 $qemu 2>/dev/null; then return 0; fi
		sleep 1
	done
	return 1
}

begin=$(date +%s.%N)
launch
for again in 1 2; do
	if up; then break; fi
	echo "vm.sh: the guest does not come up; another attempt ($again)" >&2
	kill $qemu
	wait $qemu
	launch
done
wait $qemu
status=$?
qemu=
end=$(date +%s.%N)
if [ -n "$verbose" ]; then
	{ read -r from && read -r to; } <"$run/times" 2>/dev/null
	awk -v begin="$begin" -v end="$end" -v from="${from:-0}" -v to="${to:-0}" -v kernel="$release" 'BEGIN {
		printf "vm: kernel %s, %.1f s in all; by the guest'\''s clock the command began at %.1f s and took %.1f s\n",
			kernel, end - begin, from, to - from }' >&2
fi
if [ $status -eq 124 ] || [ $status -eq 137 ]; then
	echo "vm.sh: ended after $limit s; the kernel's last lines:" >&2
	tail -n 20 "$run/console.log" >&2
	exit 124
fi
if ! [ -s "$run/status" ]; then
	echo "vm.sh: the guest did not finish the command (qemu: $status); the kernel's last lines:" >&2
	tail -n 40 "$run/console.log" >&2
	exit 125
fi
exit "$(cat "$run/status")"
