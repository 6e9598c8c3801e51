#!/usr/bin/env bash
# The demonstration behind `make demo`: from an iscsi.conf to disks, on this
# machine alone. It starts bin/iscsitarget with two targets and bin/iscsid, both
# in a directory of its own, and takes everything away again, also when it fails.
# One disk comes by TCP and one by iSER, on iWARP in software at both ends.
#
# As root, with FUSE and loop devices, a file system is made and mounted on a
# block device. Elsewhere the disks' NBD sockets are used. DEMO_DEVICE=socket
# asks for the latter.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

vault=iqn.2026-11.example:vault   # by TCP
direct=iqn.2026-11.example:direct # by iSER

# Not below TMPDIR: the path of a Unix socket has at most 107 bytes.
dir=$(mktemp -d /tmp/iscsi-demo.XXXXXX)
target_pid='' daemon_pid='' copy_pid='' mounted=''
log=$dir/iscsid.log

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
note() { printf '   %s\n' "$*"; }
fail() {
	printf 'demo: %s\n' "$*" >&2
	exit 1
}

# run shows a command and runs it.
run() {
	printf '$ %s\n' "${*//$dir/\$DIR}"
	"$@"
}
iscsictl() { run bin/iscsictl --socket "$dir/control.sock" "$@"; }

# gone waits until a process of ours has ended, and helps it after 20 seconds.
gone() {
	local i
	for ((i = 0; i < 200; i++)); do
		kill -0 "$1" 2>/dev/null || break
		sleep 0.1
	done
	kill -KILL "$1" 2>/dev/null || true
	wait "$1" 2>/dev/null || true
}

# leftovers takes away what only a daemon that was killed leaves behind.
leftovers() {
	[ "$(id -u)" -eq 0 ] || return 0
	losetup -n -O NAME,BACK-FILE 2>/dev/null |
		awk -v dir="$dir/" 'index($2, dir) == 1 { print $1 }' | xargs -r -n 1 losetup -d
	awk -v dir="$dir/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo |
		sort -r | xargs -r -n 1 umount -l
}

cleanup() {
	local status=$?
	trap - EXIT INT TERM
	set +e
	if [ $status -ne 0 ]; then
		for program in iscsid iscsitarget; do
			[ -s "$dir/$program.log" ] || continue
			printf 'demo: the end of the log of %s:\n' $program >&2
			tail -n 20 "$dir/$program.log" >&2
		done
	fi
	# The sessions go first, by force: while their target is dead, all that uses
	# their disks waits in the kernel, for as long as it takes.
	if [ -n "$daemon_pid" ]; then
		timeout 20 bin/iscsictl --socket "$dir/control.sock" -R -a --force >/dev/null 2>&1
		kill -TERM "$daemon_pid" 2>/dev/null
		gone "$daemon_pid"
	fi
	if [ -n "$copy_pid" ]; then gone "$copy_pid" 2>/dev/null; fi
	if [ -n "$mounted" ]; then umount "$dir/mnt" 2>/dev/null || umount -l "$dir/mnt"; fi
	if [ -n "$target_pid" ]; then
		kill -TERM "$target_pid" 2>/dev/null
		gone "$target_pid"
	fi
	leftovers
	rm -rf --one-file-system "$dir"
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# until_true waits up to 10 seconds for a command to succeed.
until_true() {
	local i
	for ((i = 0; i < 100; i++)); do
		if "$@"; then return 0; fi
		sleep 0.1
	done
	return 1
}

# start_target starts the target on the ports that it had, at first on any that are free.
tcp=127.0.0.1:0 iser=127.0.0.1:0
start_target() {
	rm -f "$dir/ready"
	bin/iscsitarget --config "$dir/target.json" --portal "$tcp" --iser "$iser" --ready-file "$dir/ready" \
		>>"$dir/iscsitarget.log" 2>&1 &
	target_pid=$!
	until_true test -s "$dir/ready" || fail "the target does not serve $tcp and, by iSER, $iser"
	tcp=$(sed -n 1p "$dir/ready")
	iser=$(sed -n 2p "$dir/ready")
}

stop_target() {
	kill -KILL "$target_pid"
	wait "$target_pid" 2>/dev/null || true
	target_pid=''
}

# device prints the name of a target's disk as the listing has it.
device() {
	bin/iscsictl --socket "$dir/control.sock" |
		awk -v target="$1" '$1 == target && $3 == "Connected:" { print $4 }'
}

# protocol prints whether a target's session is one by iSER: Yes or No.
protocol() {
	bin/iscsictl --socket "$dir/control.sock" -L -v |
		awk -v target="$1" '/^Target name:/ { this = $3 == target } this && /^iSER \(RDMA\):/ { print $3 }'
}

# disk prints how programs reach a target's disk: a block device, or a socket.
disk() {
	local name
	name=$(device "$1")
	case $name in
	'') return 1 ;;
	/*) echo "$name" ;;
	*) echo "/dev/$name" ;;
	esac
}

# nbd_copy copies a file to an NBD socket or back.
nbd_copy() {
	local from=$1 to=$2
	if command -v nbdcopy >/dev/null; then
		run nbdcopy "$(nbd_uri "$from")" "$(nbd_uri "$to")"
	elif command -v qemu-img >/dev/null; then
		run qemu-img convert -n -f raw -O raw "$(nbd_uri "$from")" "$(nbd_uri "$to")"
	else
		run go run ./test/nbdcp "$from" "$to"
	fi
}
nbd_uri() {
	case $1 in
	*.sock) echo "nbd+unix:///?socket=$1" ;;
	*) echo "$1" ;;
	esac
}

checksums() { (cd "$1" && find . -type f ! -path './lost+found/*' -print0 | sort -z | xargs -0 sha256sum); }

# --- what there is to show with ---------------------------------------------

for program in iscsictl iscsid iscsitarget; do
	[ -x "bin/$program" ] || fail "bin/$program is missing: run make build"
done

mode=device
why=''
if [ "${DEMO_DEVICE:-}" = socket ]; then
	mode=socket why='DEMO_DEVICE=socket asks for it'
elif [ "$(id -u)" -ne 0 ]; then
	mode=socket why='you are not root'
elif ! [ -c /dev/fuse ]; then
	mode=socket why='/dev/fuse is missing'
elif ! [ -c /dev/loop-control ]; then
	modprobe loop 2>/dev/null || true
	[ -c /dev/loop-control ] || mode=socket why='/dev/loop-control is missing'
fi
if [ $mode = device ] && ! command -v mkfs.ext4 >/dev/null; then
	mode=socket why='mkfs.ext4 is missing'
fi

say "Two targets, an iscsi.conf, and a daemon in $dir"
cat >"$dir/target.json" <<JSON
{
  "targets": [
    {
      "name": "$vault",
      "chap": {
        "users": [{"name": "alice", "secret": "correct horse battery"}],
        "mutual": {"name": "vault", "secret": "staple and so forth"}
      },
      "keys": {"HeaderDigest": "CRC32C", "DataDigest": "CRC32C"},
      "luns": [{"lun": 0, "size": "256m", "file": "$dir/vault.img", "write_cache": true, "thin": true}]
    },
    {
      "name": "$direct",
      "luns": [{"lun": 0, "size": "64m", "file": "$dir/direct.img"}]
    }
  ]
}
JSON
start_target
(umask 077 && cat >"$dir/iscsi.conf" <<CONF
vault {                      # mutual CHAP, and checksums over everything
    TargetAddress = $tcp
    TargetName    = $vault
    chapIName     = alice
    chapSecret    = "correct horse battery"
    tgtChapName   = vault
    tgtChapSecret = "staple and so forth"
    HeaderDigest  = CRC32C
    DataDigest    = CRC32C
}

direct {                     # data by RDMA, which has checksums of its own
    TargetAddress = $iser
    TargetName    = $direct
    Protocol      = iSER
}
CONF
)
run cat "$dir/iscsi.conf"
options=(-d -l 1 -P "$dir/iscsid.pid" --socket "$dir/control.sock" --run "$dir/run" -o kern.iscsi.ping_timeout=3)
if [ $mode = socket ]; then options+=(-o device=socket); fi
printf '$ bin/iscsid %s &\n' "${options[*]//$dir/\$DIR}"
bin/iscsid "${options[@]}" >"$log" 2>&1 &
daemon_pid=$!
until_true test -S "$dir/control.sock" || fail "iscsid does not serve"

say "iscsictl -A -a connects all of it"
iscsictl -A -a -c "$dir/iscsi.conf" -w 10
iscsictl -L
iscsictl -L -v
[ "$(protocol $vault) $(protocol $direct)" = "No Yes" ] || fail "one disk should come by TCP, and one by iSER"
# It may turn out only now that there are no loop devices, as in a container.
if [ $mode = device ] && [ -S "$(disk $direct)" ] && [ -S "$(disk $vault)" ]; then
	mode=socket why=$(sed -n 's/.*device loop passed over: //p' "$log" | head -n 1)
	why="no loop device can be made here${why:+: $why}"
elif [ $mode = device ] && ! { [ -b "$(disk $direct)" ] && [ -b "$(disk $vault)" ]; }; then
	fail "$(disk $direct) and $(disk $vault) are listed, but not there"
fi
if [ $mode = socket ]; then
	say "Without a block device: $why"
	note "The NBD sockets of the disks do the same for programs that speak NBD."
fi

mkdir "$dir/data" "$dir/mnt"
head -c 24M /dev/urandom >"$dir/data/random"
head -c 16M /dev/zero >"$dir/data/zeroes"
cp -r cmd docs man "$dir/data/"
head -c 64M /dev/urandom >"$dir/raw"
checksums "$dir/data" >"$dir/before"

if [ $mode = device ]; then
	vault_disk=$(disk $vault) direct_disk=$(disk $direct)
	say "A file system on $vault_disk, and files on it"
	run mkfs.ext4 -q "$vault_disk"
	run mount "$vault_disk" "$dir/mnt"
	mounted=yes
	run cp -r "$dir/data" "$dir/mnt/"
	run sync -f "$dir/mnt"
	run df -h "$dir/mnt"

	say "A mounted disk is not taken away"
	if iscsictl -R -t $vault; then fail "a session was removed whose disk is mounted"; fi

	say "The target dies and comes back while data is written to $direct_disk"
	# Which is the one by iSER. In small pieces, so that the target dies in the middle.
	printf '$ dd if=$DIR/raw of=%s bs=4k oflag=direct &\n' "$direct_disk"
	dd if="$dir/raw" of="$direct_disk" bs=4k oflag=direct status=none &
	copy_pid=$!
	sleep 0.1
	stop_target
	kill -0 "$copy_pid" 2>/dev/null || fail "the copy was over before the target could be killed"
	note "the target is dead, the copy waits"
	sleep 2
	iscsictl -L
	start_target
	note "the target is back"
	wait "$copy_pid" || fail "the copy saw an error"
	copy_pid=''
	note "the copy has ended without an error"
	iscsictl -L -w 10
	run umount "$dir/mnt"
	mounted=''
else
	say "Files on one disk, random data on the other"
	if command -v mkfs.ext4 >/dev/null; then
		run mkfs.ext4 -q -d "$dir/data" "$dir/image" 256M
	else
		tar -C "$dir" -cf "$dir/image" data
		truncate -s 256M "$dir/image"
	fi
	nbd_copy "$dir/image" "$(device $vault)"
	nbd_copy "$dir/raw" "$(device $direct)"
fi

say "All sessions removed, and added again"
iscsictl -R -a
iscsictl -L
iscsictl -A -a -c "$dir/iscsi.conf" -w 10
iscsictl -L

say "The data is what it was"
if [ $mode = device ]; then
	run mount -o ro "$(disk $vault)" "$dir/mnt"
	mounted=yes
	checksums "$dir/mnt/data" >"$dir/after"
	run diff "$dir/before" "$dir/after"
	note "$(wc -l <"$dir/before") files have the checksums that they had"
	run cmp "$dir/raw" "$(disk $direct)"
	run umount "$dir/mnt"
	mounted=''
else
	nbd_copy "$(device $vault)" "$dir/image.back"
	nbd_copy "$(device $direct)" "$dir/raw.back"
	run cmp "$dir/image" "$dir/image.back"
	run cmp "$dir/raw" "$dir/raw.back"
fi
note "64 MiB of random data are the same, byte for byte"
iscsictl -R -a

say "What was shown"
note "* an iscsi.conf with two targets: one by TCP with mutual CHAP and CRC32C digests,"
note "  one by iSER, whose data went by RDMA (iWARP in software, at both ends)"
if [ $mode = device ]; then
	note "* iscsictl -A -a -w 10, and two block devices: a file system on one, raw data on the other"
	note "* a disk in use is not removed"
	note "* a target killed under a running copy by iSER, which went on without an error when it came back"
else
	note "* iscsictl -A -a -w 10, and two disks on NBD sockets, written and read by NBD clients"
	note "  (not shown, because $why: block devices and file systems)"
fi
note "* the same data after all sessions were removed and added again"
cat <<'END'

With a real target:
   sudo make install
   iscsid                                  # the daemon
   iscsictl --discover HOST                # what does the target have?
   iscsictl --discover HOST > /etc/iscsi.conf && chmod 600 /etc/iscsi.conf
   iscsictl -Aa -w 10 && iscsictl          # connect, and list the disks
   man iscsi.conf                          # authentication, digests, time-outs, ...
END
