#include "diskferry/image_uri.hpp"

#include <gtest/gtest.h>

namespace diskferry {
namespace {

TEST(ImageUri, PathsAreFilesWhateverTheyContain) {
  for (const char* path : {"disk.qcow2", "/dev/vg0/vm1", "./a:b.raw", "50%.raw", "a b.raw", "-x", "a?b=c"}) {
    const auto uri = ImageUri::parse(path);
    ASSERT_TRUE(uri) << path;
    EXPECT_TRUE(uri->is_file());
    EXPECT_EQ(uri->path(), path);
    EXPECT_EQ(uri->to_string(), path);
  }
}

TEST(ImageUri, ParsesUris) {
  const auto uri =
      ImageUri::parse("nbds://user@[::1]:10810/my%20disk?tls-certificates=/etc/pki&connections=4");
  ASSERT_TRUE(uri);
  EXPECT_EQ(uri->scheme(), "nbds");
  EXPECT_EQ(uri->user(), "user");
  EXPECT_EQ(uri->host(), "::1");
  EXPECT_EQ(uri->port(), 10810);
  EXPECT_EQ(uri->path(), "/my disk");
  EXPECT_EQ(uri->query("connections"), "4");
  EXPECT_EQ(uri->to_string(), "nbds://user@[::1]:10810/my%20disk?tls-certificates=/etc/pki&connections=4");
}

TEST(ImageUri, AnEmptyQueryHasNoKeys) {
  for (const char* text : {"nbd://host/?", "nbd://host/?&"}) {
    const auto uri = ImageUri::parse(text);
    ASSERT_TRUE(uri) << text;
    EXPECT_TRUE(uri->queries().empty()) << text;
    EXPECT_EQ(uri->to_string(), "nbd://host/");
  }
  const auto uri = ImageUri::parse("nbd://host/?connections=4&");
  ASSERT_TRUE(uri);
  EXPECT_EQ(uri->to_string(), "nbd://host/?connections=4");
  const auto nameless = ImageUri::parse("nbd://host/?=4");
  ASSERT_TRUE(nameless);
  EXPECT_EQ(nameless->queries().size(), 1u) << "a value without a name is a mistake, and is refused later";
}

TEST(ImageUri, NeverPrintsSecrets) {
  const auto uri = ImageUri::parse("iscsi://bob:hunter2@host/iqn.x/1?password=hunter2&password-file=/f");
  ASSERT_TRUE(uri);
  EXPECT_EQ(uri->to_string().find("hunter2"), std::string::npos) << uri->to_string();
  EXPECT_NE(uri->to_string().find("password-file=/f"), std::string::npos);
  EXPECT_NE(uri->to_uri_with_secrets().find("hunter2"), std::string::npos);
}

TEST(ImageUri, RefusesWhatIsNotAName) {
  const std::string nul("a\0b", 3);
  for (std::string_view text : {std::string_view(""), std::string_view("json:{\"driver\":\"file\"}"),
                                std::string_view("nbd:localhost:10809"), std::string_view("nbd://h:99999/x"),
                                std::string_view("file://otherhost/x"), std::string_view("nbd://host/%zz"),
                                std::string_view("nbd://host/a#b"), std::string_view(nul)}) {
    EXPECT_FALSE(ImageUri::parse(text)) << text;
  }
  EXPECT_FALSE(ImageUri::parse(std::string(100000, 'a')));
}

TEST(ImageUri, NeverPrintsSecretsOfNamesItRefuses) {
  for (const char* text :
       {"nbd://bob:hunter2@h:99999/x", "nbd://bob:hunter2@h/x#y", "nbd://h/%zz?password=hunter2",
        "nbd://bob:hun/ter?hunter2@h/%zz", "iscsi://bob:hunter2ssword=x/f", "file://bob:hunter2@/x"}) {
    const auto uri = ImageUri::parse(text);
    ASSERT_FALSE(uri) << text;
    EXPECT_EQ(uri.error().message().find("hunter2"), std::string::npos) << uri.error().message();
  }
}

TEST(ShownName, IsThatOfTheImageOrTheTextItself) {
  EXPECT_EQ(shown_name("rbd://p/b?key=hidden"), "rbd://p/b?key=***");
  EXPECT_EQ(shown_name("/a b"), "/a b");
  EXPECT_EQ(shown_name("\n"), printable("\n"));
}

TEST(ImageUri, HostileNamesCannotForgeOutput) {
  EXPECT_EQ(ImageUri::from_path("a\nREADY\x1b[2J").to_string(), "a\\x0aREADY\\x1b[2J");
}

}  // namespace
}  // namespace diskferry
