#!/usr/bin/env bash
# prep.sh fills the cache of the virtual machine: a Debian kernel with its
# modules, an initramfs, and the Debian packages that only the guest needs.
# Nothing is installed on the host; with a full cache it does nothing.
#
#   prep.sh [--kernel 6.12|6.1|RELEASE] [--siw] [--force]
#
# --siw also compiles the software iWARP driver, which Debian leaves out of its
# kernels, from the kernel's own source (needs gcc and make). --force looks for
# a newer kernel of the series. The last line of its output is the exact release.
# VM_CACHE is where the cache is.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/iscsictl-vm}
PATH=$PATH:/usr/sbin:/sbin

# apt works out which of their dependencies the host lacks; what the host has
# is seen by the guest anyway.
packages=(kmod udev iproute2 procps lsscsi dmsetup open-iscsi tgt fio libiscsi-bin
	rdma-core ibverbs-providers ibverbs-utils rdmacm-utils perftest)
if ! [ -x /lib/systemd/systemd ]; then packages+=(systemd udev); fi # for guest/host.sh

kernel=6.12 siw='' force=''
while [ $# -gt 0 ]; do
	case $1 in
	--kernel) kernel=$2 && shift 2 ;;
	--siw) siw=yes && shift ;;
	--force) force=yes && shift ;;
	*) echo "prep.sh: unknown option $1" >&2 && exit 2 ;;
	esac
done

log() { echo "vm: $*" >&2; }
fail() {
	log "$*"
	exit 1
}

# apt uses the system's sources and lists, but an archive directory of ours and
# no lock of dpkg's.
apt() {
	timeout 600 apt-get -qq -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o Acquire::Retries=3 "$@"
}

command -v apt-get >/dev/null || fail "there is no apt-get here to fetch a kernel with"
mkdir -p "$cache/debs/guest/partial" "$cache/kernels"
exec 9>"$cache/.lock"
flock 9

# newest prints the release that a kernel's meta package depends on.
newest() {
	apt-cache depends --important "$1" 2>/dev/null | sed -n 's/.*Depends: linux-image-//p' | head -1
}

# find_release sets release. What is cached is preferred, so that an update in
# the archive does not change the kernel under a series of runs.
find_release() {
	local meta
	case $kernel in
	6.12) meta=linux-image-6.12-amd64 ;; # of bookworm-security
	6.1) meta=linux-image-amd64 ;;       # bookworm's own
	*) release=$kernel && return ;;
	esac
	release=
	if [ -z "$force" ]; then release=$(cat "$cache/kernels/$kernel.release" 2>/dev/null || true); fi
	if [ -n "$release" ]; then return; fi
	release=$(newest $meta)
	if [ -z "$release" ]; then
		log "apt-get update"
		apt update >/dev/null || true
		release=$(newest $meta)
	fi
	[ -n "$release" ] || fail "apt knows no $meta (is this Debian 12, with its security archive?)"
	echo "$release" >"$cache/kernels/$kernel.release"
}

fetch_packages() {
	local want archive d
	want=$(echo "${packages[*]}" | md5sum | cut -c1-12)
	if [ "$(cat "$cache/extra/.done" 2>/dev/null)" = "$want" ]; then return; fi
	log "fetching the guest's packages"
	archive=$cache/debs/guest
	rm -f "$archive"/*.deb
	apt -o Dir::Cache::archives="$archive" install --download-only --no-install-recommends -y "${packages[@]}" >/dev/null
	rm -rf "$cache/extra"
	mkdir -p "$cache/extra/usr/"{bin,sbin,lib,lib64}
	# Merged as the host's /usr is, or a package's /lib would hide the host's.
	for d in bin sbin lib lib64; do ln -s usr/$d "$cache/extra/$d"; done
	for d in "$archive"/*.deb; do
		[ -e "$d" ] || continue
		dpkg-deb --fsys-tarfile "$d" | tar -x --keep-directory-symlink -C "$cache/extra"
	done
	echo "$want" >"$cache/extra/.done"
}

# index_modules runs depmod, which is the host's or else the guest's.
index_modules() {
	local kmod
	kmod=$(command -v kmod || echo "$cache/extra/usr/bin/kmod")
	(exec -a depmod "$kmod" -b "$dir/root" "$release")
}

fetch_kernel() {
	local modules=./lib/modules/$release d
	if [ -f "$dir/.done" ]; then return; fi
	log "fetching the kernel $release"
	rm -rf "$dir"
	mkdir -p "$dir/root/usr/lib/modules"
	ln -s usr/lib "$dir/root/lib"
	(cd "$dir" && apt download "linux-image-$release" >/dev/null)
	dpkg-deb -f "$dir"/linux-image-*.deb Version >"$dir/version"
	# Only one of the two places of modules is there, which tar complains of.
	dpkg-deb --fsys-tarfile "$dir"/linux-image-*.deb | tar -x -C "$dir" \
		--exclude='*/drivers/gpu' --exclude='*/drivers/media' --exclude='*/drivers/staging' \
		--exclude='*/drivers/iio' --exclude='*/drivers/usb' --exclude='*/drivers/hwmon' \
		--exclude='*/kernel/sound' --exclude='*/net/wireless' --exclude='*/net/ethernet' \
		--exclude='*/infiniband/hw' --wildcards './boot/*' "$modules" "./usr$modules" 2>/dev/null || true
	for d in "$dir/lib/modules/$release" "$dir/usr/lib/modules/$release"; do
		if [ -d "$d" ]; then mv "$d" "$dir/root/usr/lib/modules/"; fi
	done
	rm -rf "$dir/lib" "$dir/usr" "$dir"/*.deb
	if ! [ -s "$dir/boot/vmlinuz-$release" ] || ! [ -d "$dir/root/usr/lib/modules/$release/kernel" ]; then
		fail "the package linux-image-$release does not have what was expected"
	fi
	# An emulated processor takes long to unpack them.
	find "$dir/root" -name '*.ko.xz' -print0 | xargs -0r -P2 -n64 xz -d
	index_modules
	touch "$dir/.done"
}

# build_siw compiles the driver out of tree. Debian's kernels load modules
# without a signature (and are tainted, no more).
build_siw() {
	local version series common kbuild build=$dir/build source out=$dir/root/usr/lib/modules/$release/extra p l
	if [ -f "$out/siw.ko" ]; then return; fi
	log "building siw for $release"
	version=$(cat "$dir/version") common=${release%-amd64}-common series=$(cut -d. -f1,2 <<<"$release")
	kbuild=$(apt-cache depends "linux-headers-$release" | sed -n 's/.*Depends: \(linux-kbuild-.*\)/\1/p' | head -1)
	rm -rf "$build"
	mkdir -p "$build/deb" "$build/headers" "$out"
	(cd "$build/deb" && apt download "linux-headers-$release=$version" "linux-headers-$common=$version" \
		"$kbuild=$version" "linux-source-$series=$version" >/dev/null)
	for p in "linux-headers-$release" "linux-headers-$common" "$kbuild"; do
		dpkg-deb -x "$build/deb/$p"_*.deb "$build/headers"
	done
	dpkg-deb --fsys-tarfile "$build"/deb/linux-source-*.deb |
		tar -xO --wildcards './usr/src/linux-source-*.tar.xz' |
		tar -xJ -C "$build" --strip-components=1 --wildcards '*/drivers/infiniband/sw/siw/*'
	# The packages of headers point at each other by absolute paths.
	source=$build/headers/usr/src
	{ grep -rlE "/usr/(src|lib)/linux-" "$source/linux-headers-$release" \
		--include=Makefile --include=.kernelvariables || true; } |
		xargs -r sed -i -E "s#(^|[^.[:alnum:]])/usr/(src|lib)/linux-#\1$build/headers/usr/\2/linux-#g"
	find "$source" -maxdepth 2 -type l | while read -r l; do
		p=$(readlink "$l")
		case $p in /usr/*) ln -sfn "$build/headers$p" "$l" ;; esac
	done
	# BTF would need pahole and the kernel's vmlinux.
	if ! make -s -j2 -C "$source/linux-headers-$release" M="$build/drivers/infiniband/sw/siw" \
		CONFIG_RDMA_SIW=m CONFIG_DEBUG_INFO_BTF_MODULES= modules >"$dir/siw.log" 2>&1; then
		tail -30 "$dir/siw.log" >&2
		fail "siw does not compile"
	fi
	strip -g -o "$out/siw.ko" "$build/drivers/infiniband/sw/siw/siw.ko"
	index_modules
	rm -rf "$build"
}

# order prints a module's file with those that it needs before it; one that is
# built in has none.
order() {
	local line d
	line=$(grep -E "/${1//[-_]/[-_]}\.ko:" "$dir/root/usr/lib/modules/$release/modules.dep" | head -1) || true
	if [ -z "$line" ]; then return; fi
	for d in $(tr ' ' '\n' <<<"${line#*:}" | tac); do echo "$d"; done
	echo "${line%%:*}"
}

# make_initramfs packs busybox, guest/init, and the modules that lead to the
# host's file system.
make_initramfs() {
	local image=$dir/initrd.img tree m
	if [ -f "$image" ] && ! [ "$here/guest/init" -nt "$image" ]; then return; fi
	log "making the initramfs of $release"
	tree=$(mktemp -d "$cache/initrd.XXXXXX")
	mkdir -p "$tree"/{bin,dev,proc,sys,modules,host,cache,lower,new}
	cp "$(command -v busybox)" "$tree/bin/busybox"
	install -m 0755 "$here/guest/init" "$tree/init"
	for m in virtio_pci virtio_console 9pnet_virtio 9p overlay virtio_rng; do order $m; done |
		awk '!seen[$0]++' >"$tree/modules/order"
	while read -r m; do cp "$dir/root/usr/lib/modules/$release/$m" "$tree/modules/"; done <"$tree/modules/order"
	sed -i 's#.*/##' "$tree/modules/order"
	(cd "$tree" && find . | cpio -o -H newc --quiet | gzip -1) >"$image.tmp"
	mv "$image.tmp" "$image"
	rm -rf "$tree"
}

find_release
dir=$cache/kernels/$release
fetch_packages
fetch_kernel
if [ -n "$siw" ]; then build_siw; fi
make_initramfs
echo "$release"
