package dataset

// LintCode is one kind of finding.
type LintCode struct {
	Code     string   `json:"code"` // short words with dashes
	Severity string   `json:"severity"`
	Formats  []string `json:"formats"` // that it occurs in
	Meaning  string   `json:"meaning"`
	Remedy   string   `json:"remedy"`
}

// LintCodes is the table of all findings, from which the documentation is made: errors
// first, then warnings, then notes.
func LintCodes() []LintCode {
	tar, raw, tokens := []string{"tar"}, []string{"raw"}, []string{"tokens"}
	all := []string{"raw", "tar", "tokens"}
	return []LintCode{
		{"no-files", SeverityError, all, "No file belongs to the dataset.", "choose files with --include, or give the directory that holds them"},
		{"unreadable", SeverityError, all, "A file cannot be read, or changed while it was.", "let the daemon read it (permissions, mounts), or leave it out with --include"},
		{"empty-dataset", SeverityError, tar, "No archive holds a sample.", "choose other archives with --include; names need a dot with something before it"},
		{"no-tar", SeverityError, tar, "A file that is named as an archive is none.", "choose the archives with --include, or index the files as they are with --format raw"},
		{"bad-compression", SeverityError, tar, "A compressed archive is damaged, cut short, or compressed in a way that is not supported.", "copy or write the archive again, plain or with gzip, bzip2, xz or zstd"},
		{"empty-shard", SeverityError, tar, "An archive has 0 bytes.", "copy or write it again, or leave it out with --include or --bad skip"},
		{"truncated", SeverityError, tar, "An archive ends within a member or a header.", "copy or write it again, or leave it out with --include or --bad skip"},
		{"garbage", SeverityError, tar, "Something that is no header stands between members. Python's tarfile takes it for the end and says nothing.", "copy or write it again; members behind that place cannot be found"},
		{"bad-header", SeverityError, tar, "A header contradicts itself or what follows: absurd sizes, PAX records that are none, wrong maps of sparse members.", "write it again, for instance with webdataset.ShardWriter or GNU tar"},
		{"long-name", SeverityError, tar, "A member's name has more than 4096 bytes.", "write it again with shorter names"},
		{"duplicate-part", SeverityError, tar, "A sample has two parts of one name. Names are compared without regard to capitals.", "give the parts of a sample different suffixes"},
		{"reserved-part", SeverityError, tar, "A part is named as values that readers keep for themselves: __key__, __url__, __bad__, __present__.", "rename the part"},
		{"too-many-parts", SeverityError, tar, "A sample has more than 4096 parts, mostly as the counter stands behind the first dot of the names.", "write 'img000001.jpg' or 'img/000001.jpg' instead of 'img.000001.jpg'"},
		{"too-many-kinds", SeverityError, tar, "The samples of a shard differ in their parts in thousands of ways: its names do not follow the rule that a key ends at the first dot.", "write '0001-a.jpg' instead of '0001.a.jpg'"},
		{"bad-tokens", SeverityError, tokens, "A token file's bytes are no whole number of tokens, or not what its header or .idx says.", "say its type with --dtype, copy or write it again, or leave it out with --include"},
		{"mixed-tokens", SeverityError, tokens, "The files hold tokens of different types or in different layouts.", "choose one kind with --include"},
		{"index-without-tokens", SeverityError, tokens, "A Megatron .idx lies there without its .bin.", "complete the copy, or remove the .idx"},

		{"duplicate-key", SeverityWarning, tar, "Two samples have one key. They stay two samples; a join by keys, or a split by them, will not tell them apart.", "name the samples differently; if it is one sample whose parts lie apart, write the archive in the order of keys"},
		{"missing-part", SeverityWarning, tar, "Samples lack a part that most others have.", "complete them, select the part with missing=\"empty\", or select alternatives such as \"jpg;png\""},
		{"many-parts", SeverityWarning, tar, "There are more than 62 parts, and samples lack some of them. A session that selects none fails.", "choose parts with select"},
		{"no-samples", SeverityWarning, tar, "An archive holds no member that is part of a sample.", "leave it out with --include; names need a dot with something before it"},
		{"data-after-end", SeverityWarning, tar, "Behind the end of an archive follows something that no reader reads, mostly another archive that was appended with cat.", "join archives with tar --concatenate"},
		{"compressed-archive", SeverityWarning, tar, "An archive is compressed. It is read front to back once and kept in seekable form, which takes time and room when the dataset is added.", "write plain archives: pictures and sound are compressed already"},
		{"mixed-archives", SeverityWarning, tar, "Some archives are compressed and others are not, or differently.", "write all of them one way"},
		{"small-shards", SeverityWarning, tar, "The archives have less than 16 MiB in the mean: many files have to be opened, and few samples share one.", "write archives of 64 MiB to 4 GiB"},
		{"tiny-shard", SeverityWarning, tar, "An archive has less than 16 MiB and less than a quarter of the mean.", "join it with others; if it should be larger, its writer was interrupted"},
		{"pickle", SeverityWarning, tar, "A part is a pickle, which can run any code when it is read. It is refused unless allow_pickle is given.", "write json, npy or npz instead"},
		{"huge-part", SeverityWarning, tar, "A part is larger than 64 times the median of its name. A batch's memory is sized by the largest samples.", "check the sample; large ones make all slots of the ring larger"},
		{"index-misfit", SeverityWarning, tar, "An index beside an archive, by DALI or Energon, does not fit it. Readers that believe it read other bytes.", "make the index again, or remove it"},
		{"empty-file", SeverityWarning, raw, "A file has 0 bytes: a sample without bytes.", "complete it, or leave it out with --include"},
		{"small-files", SeverityWarning, raw, "Most files have less than 16 KiB: opening them costs more than reading them.", "write them into tar archives, with webdataset.ShardWriter or tar --sort=name"},
		{"no-tokens", SeverityWarning, tokens, "A file holds no token. It is left out.", "complete or remove it"},

		{"unusual-end", SeverityNote, tar, "An archive does not end in two blocks of zeros. It may have been cut behind a member.", "write it again if samples are missing"},
		{"unsorted", SeverityNote, tar, "The samples of an archive are not in the order of their keys.", "nothing, unless parts of one sample lie apart: then use tar --sort=name"},
		{"empty-part", SeverityNote, tar, "Parts have 0 bytes.", "check whether they should"},
		{"empty-part-name", SeverityNote, tar, "A part has no name, as the file name ends in its dot. Its column is named by nothing.", "rename the members, or name the column with select"},
		{"huge-shard", SeverityNote, tar, "An archive has more than 32 GiB. One shard is indexed by one thread.", "write archives of 64 MiB to 4 GiB"},
		{"sparse-member", SeverityNote, tar, "Members are sparse. They are expanded once, into a file beside the index.", "write the archive without tar --sparse"},
		{"odd-name", SeverityNote, tar, "Names hold control characters, bytes that are no UTF-8, \"..\", or begin with a slash. Names are keys and never paths here; other tools may fail on them.", "rename the members"},
		{"no-part", SeverityNote, tar, "Files in an archive are part of no sample: their names have no dot with something before it.", "rename them if they are meant to be"},
		{"case-collision", SeverityNote, []string{"raw", "tar"}, "Two keys or classes differ in capitals only, which file systems of other systems take for one.", "name them differently"},
		{"index-old", SeverityNote, tar, "An index beside an archive is older than it. It is not used.", "make it again, or remove it"},
		{"keys-unchecked", SeverityNote, tar, "There are more keys than a lint compares (8 million). Further ones were compared within their archive only.", "lint parts of the dataset with --include"},
		{"left-out", SeverityNote, all, "Files are left out: hidden ones, or links that are not followed.", "name the dot in a pattern of --include, or copy what the links lead to"},
		{"class-imbalance", SeverityNote, raw, "One class has at least 50 times as many files as another.", "check whether files are missing; consider weights"},
		{"no-class", SeverityNote, raw, "Files lie in the root beside the classes' directories. Their label is -1.", "move them, or leave them out with --include"},
		{"short-tokens", SeverityNote, tokens, "A file holds less than 1025 tokens: with a block size of 1024 it gives no row.", "join it with others"},
		{"stray-index", SeverityNote, tokens, "An .idx is no Megatron index and lies beside no .bin. It is left out.", "remove it"},
	}
}
