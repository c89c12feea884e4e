package doctor

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func examineDirectory(m *Machine) Check {
	var parts []part
	why := ""
	for i := range m.Directories {
		some, against := m.fileSystem(&m.Directories[i])
		parts = append(parts, some...)
		if why == "" {
			why = against
		}
	}
	c := joined(parts...)
	if c.Status == OK {
		c.Meaning = "cuFile reads directly from there"
	}
	return m.onlyWithGPU(c.against(anyRoute, why))
}

// onlyWithGPU softens what matters to a GPU only.
func (m *Machine) onlyWithGPU(c Check) Check {
	if c.Status == Warn && !m.hasGPU() {
		c.Status, c.Meaning, c.Remedy = Info, "without a GPU that does not matter", ""
	}
	return c
}

// What cuFile reads directly from: GPUDirect Storage release notes and troubleshooting
// guide. The network file systems need their own client on top.
var networkKinds = map[string]string{
	"lustre": "Lustre", "wekafs": "WekaFS", "gpfs": "GPFS", "beegfs": "BeeGFS", "nfs": "NFS, over RDMA only", "nfs4": "NFS, over RDMA only",
	"scatefs": "ScateFS", "virtiofs": "virtiofs",
}

// bindMount is what makes a local file system visible in a container.
func bindMount(directory string) string {
	return "docker run -v /mnt/nvme0:" + word(directory) + " ... (an ext4 or XFS file system on NVMe, bind-mounted)"
}

func (m *Machine) fileSystem(d *Directory) (parts []part, against string) {
	if d.Err != "" {
		remedy := "stoker doctor --dir DIRECTORY"
		if strings.Contains(d.Err, unix.ENOENT.Error()) {
			remedy = "mkdir -p " + word(d.Path)
		}
		return []part{{Bad, d.Path + ": " + d.Err, "the directory cannot be used", remedy}}, "the directory cannot be used"
	}
	at := m.mountOf(d.Path)
	if at == nil {
		return []part{{Info, d.Path + ": its mount is not in /proc/self/mountinfo", "the file system is not known", ""}}, ""
	}
	found := fmt.Sprintf("%s: %s of %s on %s", d.Path, at.kind, at.source, at.point)
	if d.FreeBytes > 0 {
		found += ", " + sized(d.FreeBytes) + " free"
	}
	switch network := networkKinds[at.kind]; {
	case at.kind == "ext4":
		return m.ext4(at, found)
	case at.kind == "xfs":
		return m.disks(at, part{OK, found, "", ""})
	case network != "":
		return []part{{Info, found, "cuFile reads directly from " + network + ", where its client supports it", ""}}, ""
	case at.kind == "overlay":
		return []part{{Warn, found, "a container's own file system has no direct route", bindMount(d.Path)}}, "the directory is on a container's overlay"
	case at.kind == "tmpfs", at.kind == "ramfs":
		return []part{{Warn, found, "this is memory, not flash", "stoker doctor --dir DIRECTORY (one on NVMe)"}}, "the directory is in memory"
	}
	return []part{{Warn, found, "cuFile has no direct route from " + at.kind, "put the cache on ext4 or XFS on a local NVMe drive"}}, "cuFile has no direct route from " + at.kind
}

// ext4 needs ordered data, and cuFile wants to see that among the mount's options. The
// kernel takes the option on a new mount only: on a remount it refuses to change the
// mode, and where that is ordered already it goes on not showing it.
func (m *Machine) ext4(at *mount, found string) (parts []part, against string) {
	remount := fmt.Sprintf("sudo umount %s && sudo mount -o data=ordered %s %s (a remount does not do it; and data=ordered in /etc/fstab)", word(at.point), word(at.source), word(at.point))
	if at.point == "/" {
		remount = addKernelOption("rootflags=data=ordered")
	}
	switch data := at.value("data"); data {
	case "ordered":
		return m.disks(at, part{OK, found + ", data=ordered", "", ""})
	case "":
		parts, against = m.disks(at, part{OK, found + ", without data=ordered", "", ""})
		if against != "" {
			return parts, against // what the disk is rules it out whatever the mount says
		}
		parts[0].status, parts[0].remedy = Warn, remount
		parts[0].meaning = "cuFile takes ext4 for direct reads only if the mount table shows data=ordered, though it is the default"
		return parts, "the ext4 mount does not show data=ordered"
	default:
		return []part{{Warn, found + ", data=" + data, "ext4 with data=" + data + " has no direct route", remount}}, "ext4 is mounted with data=" + data
	}
}

// disks adds what is below the file system.
func (m *Machine) disks(at *mount, p part) (parts []part, against string) {
	parts = []part{p}
	b := m.block(at.number, at.source)
	if b == nil {
		return append(parts, part{Info, "its disk is not in /sys", "whether it is on NVMe is not known", ""}), ""
	}
	var names []string
	for _, disk := range b.disks {
		names = add(names, disk.name)
	}
	parts[0].found += ", on " + strings.Join(append(slices.Clone(b.layers), orElse(strings.Join(names, ", "), b.name)), " over ")
	switch {
	case !b.nvme():
		parts = append(parts, part{Warn, "", kindOfDisk(names), "stoker doctor --dir DIRECTORY (one on a local NVMe drive)"})
		return parts, "the directory is not on NVMe"
	case len(b.layers) > 0 && !m.nvidiaFSActive():
		parts = append(parts, part{
			Warn, "", "P2PDMA does not go through " + strings.Join(b.layers, ", ") + " (RAID and device mapper), but on Grace, and for RAID0 on kernel 7.1 and newer",
			"give stokerd each drive as a device of its own: flash.devices in its configuration",
		})
		return parts, "the drives are behind RAID or device mapper"
	case len(b.layers) > 0:
		parts = append(parts, part{Info, "", "nvidia-fs reads directly through RAID0; through other layers it does not", ""})
	}
	return parts, ""
}

// kindOfDisk says what disks are that are not NVMe.
func kindOfDisk(names []string) string {
	for _, name := range names {
		if strings.HasPrefix(name, "vd") || strings.HasPrefix(name, "xvd") {
			return "the disk is a virtual machine's: no GPU can read from it"
		}
	}
	return "the disk is not NVMe"
}

// howToTry is what would let a file be written in a directory, where why says what kept
// it from that; command is what is tried then.
func howToTry(directory, why, command string) string {
	switch {
	case strings.Contains(why, unix.EROFS.Error()):
		return "sudo mount -o remount,rw $(stat -c %m " + word(directory) + ")"
	case strings.Contains(why, unix.ENOSPC.Error()), strings.Contains(why, unix.EDQUOT.Error()):
		return "df -h " + word(directory) + " (and make room there)"
	case strings.Contains(why, unix.EACCES.Error()), strings.Contains(why, unix.EPERM.Error()):
		return "sudo -u USER_OF_STOKERD " + command + " --dir " + word(directory)
	}
	return "stoker doctor --dir DIRECTORY (one in which files can be made)"
}

// Attributes of files that cuFile refuses; linux/fs.h, FS_*_FL.
var refusedFlags = []struct {
	bit  uint32
	name string
}{{0x4, "compressed (chattr +c)"}, {0x10, "immutable (chattr +i)"}, {0x20, "append-only (chattr +a)"}, {0x800, "encrypted"}, {0x4000, "journalled data (chattr +j)"}}

// cuFileAlignment is what offsets of direct reads are multiples of.
const cuFileAlignment = 4096

func examineDirectIO(m *Machine) Check {
	var parts []part
	why := ""
	for i := range m.Directories {
		for _, p := range directIO(&m.Directories[i]) {
			parts = append(parts, p)
			if p.status == Warn && why == "" {
				why = p.meaning
			}
		}
	}
	c := joined(parts...)
	if c.Status == OK {
		c.Meaning = "files there can be read past the page cache"
	}
	return m.onlyWithGPU(c.against(anyRoute, why))
}

func directIO(d *Directory) []part {
	if d.Err != "" {
		return []part{{None, d.Path + ": not examined", "", ""}}
	}
	parts := []part{}
	switch {
	case d.NotTried != "":
		parts = append(parts, part{Info, d.Path + ": not tried: " + d.NotTried, "whether O_DIRECT works there is not known", howToTry(d.Path, d.NotTried, "stoker doctor")})
	case d.DirectErr != "":
		parts = append(parts, part{Warn, d.Path + ": " + d.DirectErr, "the file system does not read with O_DIRECT", "put the cache on ext4 or XFS on a local NVMe drive"})
	default:
		found := d.Path + ": O_DIRECT works"
		if d.OffsetAlignment > 0 {
			found += fmt.Sprintf(", alignment %d bytes (memory %d)", d.OffsetAlignment, d.MemoryAlignment)
		}
		parts = append(parts, part{OK, found, "", ""})
	}
	if d.OffsetAlignment > cuFileAlignment {
		parts = append(parts, part{Warn, "", fmt.Sprintf("reads must be multiples of %d bytes, and Stoker's are of 4096", d.OffsetAlignment), "use a drive, or a format of it, with blocks of 4096 bytes: nvme id-ns -H lists them"})
	}
	for _, flag := range refusedFlags {
		if d.HasFlags && d.Flags&flag.bit != 0 {
			parts = append(parts, part{Warn, d.Path + " is " + flag.name, "cuFile refuses such files", "sudo chattr -R -cija " + word(d.Path)})
		}
	}
	return parts
}
